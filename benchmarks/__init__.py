"""The benchmark suite: floors, miniλ and its peers in one run.

    python -m benchmarks invoke|cold|throughput|density|http [--quick] [--peers all] [--check]

Reading order: `rounds` (how anything is measured), `floors`, `ours`, `peers` and `servers`
(who is measured), `invoke`, `cold`, `throughput`, `density`, `http` with `deploy` (what is
measured), `report`.

Rule: nothing is imported here. `lone` runs below this package, and is weighed.
"""
