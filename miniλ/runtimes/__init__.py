"""Runtimes: from a runtime's name to the program of its workers, and to what a function sees there.

Rule 1: `pool/` and `worker/worker.py` know no language: a worker speaks `workers/PROTOCOL.md`. What
is Python's is in these places:

- `workers/python/`: the worker itself;
- `catalog` and `environment`, here;
- `worker/zygote.py`: it starts an interpreter (-I -S -u start.py), and checks the version that this
  reports;
- `sandbox/zygote_main.py`: it loads `workers/python/bootstrap.py`, calls its `prepare` once, and in
  each child its `stand_by` and `main`;
- `sandbox/namespaces.py`: `RootFilesystem` binds the directories of the interpreter.

Rule 2: a program counts as a runtime only after its zygote, or a trial start, has reported that
version. Its file name is no proof.

To be read in this order:

- `catalog`: the names that exist, and the programs on this machine that may be each of them.
- `environment`: what a worker's function sees: variables, layers, directories, its log stream.

Where a Node.js runtime would go:

1. `workers/nodejs/`: a program that speaks `workers/PROTOCOL.md` on descriptors 3 and 4.
2. `catalog.KNOWN` and `catalog.candidates`: its names, and the programs that may be each of them.
3. `environment.variables`: LAMBDA_RUNTIME_DIR, which is /var/runtime/python now, and its own ones.
4. `worker/zygote.py` and `sandbox/zygote_main.py`: Node.js cannot be forked once it runs, so its
   workers come from a Python zygote whose child enters the sandbox and then execs `node`, in place
   of `bootstrap.main`. The check of the version is then a trial start of `node`, and `prepare` and
   `stand_by` do not apply.
5. `namespaces.RootFilesystem`: the directories of `node`, as it binds those of the interpreter.

Until then `catalog.check` refuses the name.
"""
