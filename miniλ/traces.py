"""Trace ids, which follow a chain of invocations, and the end of a recursive loop.

A trace id is X-Ray's: `Root=1-6743f0a1-...;Sampled=0`. AWS's clients inside a function send the
trace id of its invocation with their own calls, so what is added to it comes back with them:
`Lineage` counts how often each function has been in this chain.

Source: Lambda developer guide, "Use Lambda recursive loop detection to prevent infinite loops": a
chain is stopped after about 16 invocations of one function, unless PutFunctionRecursionConfig
allows it; X-Ray developer guide, "Tracing header".
"""

from __future__ import annotations

import hashlib
import re
import time
from functools import lru_cache

from miniλ.errors import RecursiveInvocation

HEADER = "X-Amzn-Trace-Id"
# Times that a function may be in one chain.
MAX_IN_CHAIN = 16

# A trace id of a client is passed on into environments and headers: printable ASCII only.
_TRACE_ID = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;[!-~]{0,500})?")
_LINEAGE = re.compile(r";Lineage=([0-9a-f:|]+)")


def of(header: str | None, request_id: str) -> str:
    """Return the trace id that a client sent, if it is one; else a new one."""
    return header if header and _TRACE_ID.fullmatch(header) else new(request_id)


def new(request_id: str) -> str:
    """Return a new trace id, made of the time and a request's id."""
    digits = f"{request_id[:8]}{request_id[9:13]}{request_id[14:18]}{request_id[19:23]}"
    return f"Root=1-{int(time.time()):08x}-{digits}{request_id[24:28]};Sampled=0"


def for_response(trace_id: str) -> str:
    """Return a trace id as responses carry it: in lower case, without the lineage."""
    return _LINEAGE.sub("", trace_id).lower()


def has_lineage(trace_id: str) -> bool:
    """Return whether a trace id has a lineage."""
    return _LINEAGE.search(trace_id) is not None


def start_lineage(trace_id: str, function: str) -> str:
    """Return a trace id for the first function of its chain."""
    return f"{trace_id};Lineage=1:{_mark(function)}:1"


def extend_lineage(trace_id: str, function: str, *, may_recur: bool) -> str:
    """Return a trace id for the next function of its chain.

    Raises `RecursiveInvocation` for a function that was in it MAX_IN_CHAIN times and does not
    `may_recur`.
    """
    match = _LINEAGE.search(trace_id)
    if match is None:
        return start_lineage(trace_id, function)
    counts: dict[str, int] = {}
    for part in match[1].split("|"):
        mark, _, count = part.removeprefix("1:").partition(":")
        counts[mark] = int(count) if count.isdecimal() else 0
    mark = _mark(function)
    count = counts.get(mark, 0) + 1
    if count > MAX_IN_CHAIN and not may_recur:
        msg = (
            "Lambda has detected your function being invoked in a recursive loop with other "
            "Amazon Web Services resources and stopped your function's invocation."
        )
        raise RecursiveInvocation(msg)
    counts[mark] = min(count, MAX_IN_CHAIN + 1)
    lineage = "|".join(f"1:{mark}:{count}" for mark, count in counts.items())
    return f"{_LINEAGE.sub('', trace_id)};Lineage={lineage}"


@lru_cache(4096)
def _mark(function: str) -> str:
    return hashlib.sha256(function.encode()).hexdigest()[:8]
