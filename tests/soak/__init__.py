"""The soak: one supervisor under load and abuse must not grow, leak or lose anything.

    python -m tests.soak --minutes N [--seed S] [--json FILE] [--sandbox LEVEL] [--chaos 0.01]

Theory of operation: four tasks invoke functions that work, now and then one that misbehaves, and
now and then hand in an asynchronous event, of which none may be lost. One task updates, deletes and
creates functions and kills the zygote. One task samples the process from outside, once a second.
Exit code 0 if all verdicts hold, 1 if not, 130 on Ctrl-C.

Rule 1: idle is compared to idle. What is kept ahead (cgroups, volumes, a forked child) exists in
both, so all functions are deleted after the warm-up and at the end, and what is left must be equal.

Rule 2: every response is judged. A function that works may fail only by what the soak itself did at
that moment: Sandbox.Failure while a zygote dies, ResourceNotFound while it is deleted. An update is
no excuse: running invocations end on the old version. Each abuse is a function of its own.

Rule 3: what is bounded is full before it is measured: the journal is filled up to its limit.

Rule 4: of the soak's own, only counters and samples grow, by 8 bytes for each number: 0.3 MB in an
hour.

Reading order: mix (the functions and what they may answer), premises (what a supervisor has on this
machine), results (what a soak measures), verdicts (which of it must hold), report (its text), load
(the tasks), __main__ (the command line).
"""
