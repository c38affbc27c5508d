"""A worker: one process that runs one version of one function, one invocation at a time.

Rule 1: an invocation belongs to its worker and not to its caller: if the caller is cancelled, it
runs on. It ends in one place (`Worker._complete`).

Rule 2: a warm invocation creates no asyncio task: it is one write, one read, and callbacks of the
event loop.

Rule 3: whether a worker lives is read from its pidfd, never from an end of file: a child of the
worker may keep the pipe open.

To be read in this order:

- `lifecycle`: the states of a worker and what leads from one to the next, as a table.
- `wire`: frames, to and from bytes; `channel`: frames over the two pipes of a worker.
- `zygote`: the process that forks workers, as the supervisor sees it.
- `equipment`: what a worker gets from its supervisor, and the context of an invocation.
- `worker`: one worker: init, invoke, freeze, thaw, stop, kill.
- `launch`: pipes, sandbox and fork of its process.
- `init_phase`: how the init phase went, and how its waiters learn that.
- `verdicts`: the end of an invocation without an answer.
- `process_tree`: all processes of a worker, how they are killed, and when they are gone.
- `log_pipe`: what a worker prints; `answer_stream`: an answer that comes in pieces.
- `tmp_dirs`: the /tmp of each worker; `affinity`: the core that it wakes on.
- `isolation`: the mechanisms that every worker of a supervisor has, chosen when it opens.
"""
