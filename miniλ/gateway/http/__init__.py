"""HTTP: which requests are read at all, which caller each is from, and how an answer is written.

Rule 1: a limit comes before the work. The number of connections, the time for a head, the size and
the rate of a body, and the signature are checked before a function runs or anything changes.

Rule 2: a request has one answer, in the form that AWS's clients parse; bytes that are not HTTP have
one too.

Rule 3: aiohttp parses. Where we go around it (`connections`, `fast_path`) we use private names of
it: tests/unit/gateway/http/test_aiohttp.py lists them, and pyproject.toml bounds its version.

Reading order, the order of a request:

- connections  sockets: how many, how slow, what is not HTTP, what a client that leaves means
- fast_path    a warm, plain invocation from bytes to bytes, around aiohttp
- loopback     without [auth] in the settings: the gateway listens on loopback and refuses web pages
- auth         with [auth]: the caller of a request, and the proof of its signature
- keys         the keys file, and what each key may do
- bodies       the body of a request, within its limits of size and rate
- answers      documents and errors as each AWS protocol writes them
"""
