"""The gateway is the HTTP front door: Lambda's API, function URLs, and what clients call beside it.

Theory of operation: `server` owns the listening socket and turns bytes into a request that is safe
to look at (who may ask, how large, how slow). `operations` finds which operation of Lambda's
service model it is, `shapes` and `validate` check its parameters as the model says, and one
coroutine per operation, in the file of its noun, does it. Nothing in here starts a process or
writes a file: that is the supervisor's, and the same as for who embeds it.
"""
