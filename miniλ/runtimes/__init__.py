"""Runtimes: from a runtime's name to the program of its workers, and to what a function sees there.

Rule 1: a runtime is a row here and a worker program in `workers/`; pool, worker and sandbox know no
language.

Rule 2: no candidate is trusted for its file name. A program is the runtime when its zygote, or a
trial start, says so.

To be read in this order:

- `catalog`: the names that exist, and the programs on this machine that may be each of them.
- `environment`: what a worker's function sees: variables, layers, directories, its log stream.

A Node.js runtime would go here: its names into `catalog.KNOWN`, its programs into
`catalog.candidates`, its variables into `environment.variables`. Its worker would be
`workers/nodejs`, beside `workers/python`, and speak `workers/PROTOCOL.md`. It cannot fork as Python
does: its zygote would fork and then exec (`sandbox.zygote_main`). Until then `catalog.check`
refuses the name.
"""
