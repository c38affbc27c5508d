"""The pool: all workers of a supervisor, and which invocation gets which of them.

Rule 1: while invocations wait, `plan.plan` decides which of them gets which worker, which workers
start, and which end to make room; `pool.Pool` carries that out. Outside of the plan are:

- the warm path: while no invocation waits, `Pool.lease` takes the worker of the version that became
  idle last;
- provisioned workers: `Pool` starts those that are missing;
- a worker whose init phase failed: the first invocation that waits for its version gets it, and
  repeats the init phase;
- the ends of idle workers by keep-alive, by memory pressure, and by an update or delete of their
  function.

Rule 2: a worker is leased to one invocation, and given back when that is over.

To be read in this order:

- `plan`: the decision, as a function of values: assign, admit, start, stop.
- `versions`: what the pool knows of one version and of its waiters, and the eviction priority.
- `pool`: the loop that carries it out: leases, starts, keep-alive, memory pressure, close.
- `capacity`: how many workers this host has memory for.
- `inherited_tmp`: the /tmp of a worker that crashed, until its replacement takes it, or its
  keep-alive is over.
- `limit_poll`: limits that neither a cgroup nor a file system holds, polled while workers are busy:
  memory every 100 ms, /tmp every 500 ms.
"""
