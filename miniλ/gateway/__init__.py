"""Where does a request become an operation? The HTTP front door: Lambda's API, and function URLs.

Theory of operation: `server` owns the listening socket. `http` turns bytes into a request that is
safe to read: who sent it, how large it is, how fast it comes. `service_model` says which operation
of Lambda's it is and checks its parameters; one coroutine per operation, in the file of its noun,
carries it out.

Rule 1: each answer is one that AWS's clients can read. An error of ours is a ServiceException to
the client and a Trouble in the journal.

Rule 2: a client that leaves changes nothing: what its request began runs to its end, once.

Rule 3: an operation changes functions through `Functions` and resources through the registry, and
writes files in `uploads` only. Workers belong to the pool, as for the embedding app.

Read in this order:

    server          from a request to its answer
    routes          the paths beside Lambda's: health, enforcement, downloads, function URLs, aws/
    call            one request of an operation, and what it acts on
    http/           connections, body limits, loopback, keys, answers, the fast path
    service_model/  Lambda's service model: operations, inputs, shapes, constraints
    invocations     Invoke, InvokeWithResponseStream, InvokeAsync; eventstream has their frames
    functions       create, read, update, delete; configurations reads, documents writes them
    uploads         archives in requests; s3 reads one from a bucket, downloads links to one
    versions        versions and aliases
    layers          layer versions
    policies        resource policies
    concurrency     reserved and provisioned concurrency
    event_invoke    settings of asynchronous invocations
    mappings        event source mappings; sources has what each sort of source takes
    attributes      recursion, runtime management, tags, account settings
    not_offered     operations that are refused, or answered as by an account without any
    urls/           function URLs
    aws/            CloudWatch Logs, STS and IAM
"""
