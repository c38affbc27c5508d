"""The pool: all workers of a supervisor, and which invocation gets which of them.

Rule 1: `plan.plan` decides, and `pool.Pool` carries out. The one decision outside of it is the fast
path: `Pool.lease` takes the worker that became idle last.

Rule 2: a worker is leased to one invocation, and given back when that is over.

To be read in this order:

- `plan`: the decision, as a function of values: assign, admit, start, stop.
- `versions`: what the pool knows of one version and of its waiters, and the eviction priority.
- `pool`: the loop that carries it out: leases, starts, keep-alive, memory pressure, close.
- `capacity`: how many workers this host has memory for.
- `inherited_tmp`: the /tmp of a worker that crashed, until its replacement has it.
- `limit_poll`: limits that neither a cgroup nor a file system holds, polled every 100 ms.
"""
