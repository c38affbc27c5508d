"""What a soak measures: a `Result`, and its verdicts as rows."""

from __future__ import annotations

from array import array  # noqa: TC003 - msgspec reads the annotations
from collections import Counter

import msgspec


class Row(msgspec.Struct, frozen=True):
    """A verdict: a quantity, its values at the beginning and the end, whether it holds."""

    what: str
    begin: str
    end: str
    holds: bool


class Result(msgspec.Struct, kw_only=True):
    """All that a soak measures; `--json` writes it."""

    where: str
    minutes: float
    seed: int
    chaos: float
    limits: dict[str, str] = {}
    seconds: float = 0.0
    invocations: Counter[str] = msgspec.field(default_factory=Counter)
    changes: Counter[str] = msgspec.field(default_factory=Counter)
    # How invocations ended that a change of ours disturbed, and how each abuse ended.
    excused: Counter[str] = msgspec.field(default_factory=Counter)
    abuses: dict[str, Counter[str]]
    unexpected: Counter[str] = msgspec.field(default_factory=Counter)
    # The first unexpected failures: their kind, seconds from the start, log.
    failures: list[tuple[str, float, str]] = []
    # Asynchronous events: accepted, and by how they ended.
    events: Counter[str] = msgspec.field(default_factory=Counter)
    facts: Counter[str] = msgspec.field(default_factory=Counter)
    troubles: list[str] = []
    rows: list[Row] = []
    samples: dict[str, array[float]] = {}
