"""Brings its own msgspec, which the supervisor uses too: each has to get its own."""

import os

import msgspec


class Point(msgspec.Struct):
    """Something to encode, so that the C extension is really used."""

    x: int
    y: int


def handler(event, context):
    """Return which msgspec this is, and what it makes of a point."""
    return {
        "version": msgspec.__version__,
        "file": os.path.realpath(msgspec.__file__),
        "task_root": os.path.realpath(os.environ["LAMBDA_TASK_ROOT"]),
        "point": msgspec.json.encode(Point(**event)).decode(),
    }
