"""The probe: tries each mechanism once, and reports which of them work on this host.

    python -I -S probe.py PACKAGES DIRECTORY RUNTIME

Rule: a uid, a kernel version or a file's existence proves nothing. Root may lack capabilities, and
Ubuntu lets every user make a user namespace without rights in it. The probe is a program of its own
because it forks, which the supervisor, with its threads, never does.

Prints a JSON object: for each mechanism "" if it works, else one line with the reason.
"""

from __future__ import annotations

import json
import sys


def examine(directory: str, runtime: str) -> dict[str, str]:
    """Try every mechanism. `directory` is an empty one to mount on; no mount is left there."""
    from miniλ.sandbox import landlock, namespaces, seccomp, users  # noqa: PLC0415 - see below

    return {
        "landlock": landlock.probe(),
        "seccomp": seccomp.probe(),
        "root namespaces": namespaces.probe(directory, runtime, user=False),
        "user namespaces": namespaces.probe(directory, runtime, user=True),
        "users": "" if users.probe() else "workers cannot change to users of their own",
    }


if __name__ == "__main__":
    sys.path.append(sys.argv[1])  # where `examine` finds the package miniλ
    sys.stdout.write(json.dumps(examine(*sys.argv[2:])))
