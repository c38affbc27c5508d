"""The benchmark suite: floors, miniλ and its peers, measured in one run.

    python -m benchmarks invoke|throughput|cold|density|http|events [--quick] [--peers all]
    python -m benchmarks document FILE.json ... [--output docs/benchmarks.md]

Rule 1: a figure never stands alone: its floor, the least that the same work can cost, is measured
in the same run, and the ratio is what counts.

Rule 2: modules import in one direction, in the reading order below; tests/unit/test_benchmarks.py
keeps it.

Rule 3: this file imports nothing. `lone` runs below this package, and its memory is measured.

Reading order:

- `rounds`: how everything is measured: interleaved rounds, medians, placement.
- `report`, `promises`: a result as a table and as JSON; each promise's sentence and limit.
- `ours`, `floors`: miniλ as a contestant; the floors.
- `programs`, `catalog`, `executors`, `pools`, `servers`, `peers`: the other contestants: how a
  program is run and ended, which peers there are and how they are installed, peers that are process
  pools, peers that are servers, and starting any of them by name.
- `invoke`, `throughput`, `cold`, `lone` and `density`, `deploy` and `http`, `events`: one benchmark
  each.
- `plot`, `document`: a result as a picture; results as the page docs/benchmarks.md.
- `__main__`: the command line.
"""
