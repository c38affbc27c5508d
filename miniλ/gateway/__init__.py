"""The gateway: Lambda's HTTP API and function URLs; it turns a request into an operation.

Theory of operation: `server` owns the listening socket. `http` turns bytes into a request that is
safe to read: its caller, its size and its rate are checked. `service_model` says which operation
of Lambda's it is and checks its parameters; one coroutine per operation, in the file named after
what it acts on, carries it out. There are two other ways to an answer. Without the settings' [auth]
section, a plain warm Invoke is answered before aiohttp reads it: `http.fast_path`. Requests that
are not for Lambda's operations, function URLs among them, are for `routes`.

Rule 1: each answer is one that AWS's clients can read. An error of ours is a ServiceException to
the client and a Trouble in the journal, never a traceback.

Rule 2: a client that leaves changes nothing: what its request began runs to its end, once.

Rule 3: an operation changes functions through `Functions` and resources through the registry, and
writes files in the state's uploads/ directory only. It reaches workers only through the invoker, as
the embedding app does.

Read in this order:

    server          from a request to its answer
    routes          the paths beside Lambda's: health, enforcement, downloads, function URLs, aws/
    call            one request of an operation, and what it acts on
    http/           connections, body limits, loopback, keys, answers, the fast path
    service_model/  Lambda's service model: operations, inputs, shapes, constraints
    invocations     Invoke, InvokeWithResponseStream, InvokeAsync; eventstream has their frames
    functions       create, read, update, delete
    configurations  a client's parameters to fields
    documents       fields to answers
    uploads         archives in requests; s3 reads one from a bucket, downloads links to one
    versions        versions and aliases
    layers          layer versions
    policies        resource policies; statements are those of functions and of layers
    concurrency     reserved and provisioned concurrency
    event_invoke    settings of asynchronous invocations
    mappings        event source mappings; sources has the members of each sort of source
    attributes      recursion, runtime management, tags, account settings
    not_offered     operations that are refused, or answered as by an account without any
    urls/           function URLs
    aws/            CloudWatch Logs, STS and IAM
"""
