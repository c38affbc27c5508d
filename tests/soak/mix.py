"""The functions of a soak: those that work, with their answers, and those that misbehave."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from miniλ.model import MB

FUNCTIONS = Path(__file__).resolve().parent.parent / "functions"


class Work(NamedTuple):
    """A function that works: its weight in the mix, an event and the answer it must give."""

    code: str
    weight: int
    memory_size: int
    event: Any
    answer: Any


PIECES = b"".join(number.to_bytes(4, "big") * 65536 for number in range(4))
WORKS = {
    "hello": Work("hello", 40, 128, {"name": "Ada"}, {"message": "Hello, Ada!"}),
    "logging": Work("logging_app", 15, 256, {}, {"level": "WARNING"}),
    "disk": Work(
        "disk_load",
        8,
        512,
        {"mb": 1},
        {"bytes": MB, "sha256": hashlib.sha256(PIECES).hexdigest()},
    ),
    "cpu": Work("cpu_load", 8, 1024, {"operation": "primes", "n": 5000}, {"result": 669}),
    "processes": Work(
        "many_processes",
        1,
        1769,
        {"numbers": [2, 3]},
        {"squares": [4, 9], "processes": 3, "exit_codes": [0, 0], "subprocess": "processes 42"},
    ),
    "changing": Work("", 15, 192, {}, None),
}
# The function of asynchronous events, which is never deleted, and their share of invocations.
IN_BACKGROUND, EVENTS_SHARE = "in_background", 0.02
# The code of `changing`, written again for each version.
CHANGING = "def handler(event, context):\n    return {version}\n"
# Parts of answers that vary: paths, and files that a worker leaves if it dies with its zygote.
VARYING = frozenset({"directory", "beside"})


class Abuse(NamedTuple):
    """A function that misbehaves: the allowed ends of an invocation, and its options."""

    ends: frozenset[str]
    options: dict[str, Any]


def _abuse(*ends: str, **options: Any) -> Abuse:
    """Return an abuse. 512 MB is a third of a CPU: enough to end before the timeout."""
    return Abuse(frozenset(ends), {"memory_size": 512, "timeout": 20, **options})


OUT_OF_MEMORY = ("MemoryError", "Runtime.ExitError")
# By the name of the handler in functions/abuse.
ABUSES = {
    "exits": _abuse("Runtime.ExitError"),
    "kills_itself": _abuse("Runtime.ExitError"),
    "segfaults": _abuse("Runtime.ExitError"),
    "raises": _abuse("ValueError"),
    "sleeps": _abuse("Sandbox.Timedout", timeout=1),
    "eats_private": _abuse(*OUT_OF_MEMORY, memory_size=128),
    "eats_shared": _abuse(*OUT_OF_MEMORY, memory_size=128),
    # Its worker ends after each answer; otherwise daemons add up to the process limit.
    "leaves_children": _abuse("answered left", keep_alive=0),
    # A tmpfs is full first; if /tmp is a directory, the limit poll ends the worker.
    "fills_tmp": _abuse("answered No space left on device", "Runtime.ExitError"),
    "prints": _abuse("answered printed"),
    "garbles": _abuse("Runtime.TruncatedResponse"),
    "answers_hugely": _abuse("Function.ResponseSizeTooLarge"),
    "closes_all": _abuse("Runtime.ExitError", "Runtime.TruncatedResponse"),
}
