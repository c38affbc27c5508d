"""Function URLs: which URL leads to which function, which caller may use it, and what HTTP carries.

Rule 1: knowing a URL is not enough. Its AuthType asks for a statement of the resource policy, or
for the signature of a key.

Rule 2: web pages may call function URLs, and nothing else of the gateway. The Cors of a URL decides
which pages may read its answers.

Rule 3: the caller is a stranger. An answer never contains an error of ours or of the function.

Reading order:

- configs      Create-, Get-, Update-, Delete- and ListFunctionUrlConfig(s), and the index from the
               id of a URL to its function
- serve        a request to a URL, from its caller to its answer
- payloads     a request as the payload of an event, a result as an answer; no I/O
- cors         preflights, and the headers of Cors; no I/O
- stream_head  the head of a streamed answer, taken off its first bytes; no I/O
"""
