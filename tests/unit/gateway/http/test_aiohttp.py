"""Tests of our footing in aiohttp: the names without a promise that `gateway.http` relies on.

`connections` subclasses the protocol of aiohttp's server, and `fast_path` answers before it. Both
need attributes that aiohttp does not document. Each is named here with its use, so that a version
without one fails by name, and not by a connection that hangs.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.http
import pytest
from aiohttp import http_parser, streams, web, web_protocol

from miniλ.gateway.http import bodies, connections, fast_path

# Private attributes of the protocol, and what uses each.
OF_PROTOCOL = {
    "_close": "Connection.is_idle, _answer: the connection ends after the current answer",
    "_force_close": "Connection.connection_made, is_idle: the connection ends now",
    "_keepalive_handle": "Connection._process_keepalive: the timer, set again",
    "_keepalive_timeout": "Connection._answer, _process_keepalive: seconds of an idle connection",
    "_loop": "Connection: the clock of its deadlines",
    "_manager": "Connection.connection_made: the server, which counts its connections",
    "_messages": "Connection.data_received, _check_message: requests that wait to be answered",
    "_next_keepalive_close_time": "Connection._answer, idle_since: the end of an idle connection",
    "_process_keepalive": "Connection._process_keepalive overrides it: a fast path is not idle",
    "_waiter": "Connection.is_idle: aiohttp's task waits for a request",
}
# And of the server.
OF_SERVER = {
    "_connections": "Server.has_room, _all: connections, to be counted, polled and closed",
    "_loop": "Server: the timer of its poll, and the loop of its connections",
}
# Attributes without an underscore that aiohttp does not document.
UNDOCUMENTED = [
    (web_protocol, "RequestHandler", "Connection subclasses it"),
    (web_protocol, "RequestPayloadError", "bodies.BrokenBody subclasses it"),
    (web_protocol.RequestHandler, "connection_made", "Connection overrides it"),
    (web_protocol.RequestHandler, "data_received", "Connection overrides it: the fast path"),
    (web_protocol.RequestHandler, "eof_received", "Connection overrides it: half-closed clients"),
    (web_protocol.RequestHandler, "finish_response", "Connection overrides it: one answer only"),
    (web_protocol.RequestHandler, "handle_error", "Connection overrides it: errors as JSON"),
    (web_protocol.RequestHandler, "log_exception", "Connection.handle_error"),
    (web_protocol.RequestHandler, "shutdown", "Connection overrides it: the fast path is awaited"),
    (web_protocol.RequestHandler, "close", "Connection._answer, finish_response"),
    (web_protocol.RequestHandler, "force_close", "Connection.drop, Server.has_room, _poll"),
    (web.Server, "shutdown", "Server overrides it: its timer ends"),
    (aiohttp.http, "RawRequestMessage", "Connection._check_message tells requests from errors"),
    (aiohttp.http.StreamWriter, "write", "bodies._send_continue"),
    (streams.StreamReader, "is_eof", "bodies.read, Connection: whether all of a body is here"),
    (streams.StreamReader, "read_nowait", "bodies.read: a body that came with its head"),
    (streams.StreamReader, "set_exception", "bodies._check_declared, Connection._check_message"),
    (http_parser, "HttpRequestParser", "server.Gateway tells the parser in C by its module"),
]
OVERRIDDEN = ["connection_made", "data_received", "eof_received", "finish_response"]
OVERRIDDEN += ["handle_error", "shutdown", "_process_keepalive"]


def missing(name: str, use: str) -> str:
    """Return the message for an attribute that this version does not have."""
    return f"aiohttp {aiohttp.__version__} has no {name}. Its use: {use}"


@pytest.mark.parametrize("name", OF_PROTOCOL)
def test_the_protocol_has_a_private_name(name: str) -> None:
    """It has __slots__, so its attributes are on the class."""
    assert hasattr(web_protocol.RequestHandler, name), missing(
        f"RequestHandler.{name}", OF_PROTOCOL[name]
    )


@pytest.mark.parametrize("name", OF_SERVER)
def test_the_server_has_a_private_name(name: str) -> None:
    """An instance has it: the server has no __slots__."""

    async def make() -> web.Server[Any]:
        return web.Server(lambda _: None)  # type: ignore[arg-type,return-value] # never called

    assert hasattr(asyncio.run(make()), name), missing(f"web.Server.{name}", OF_SERVER[name])


@pytest.mark.parametrize(("owner", "name", "use"), UNDOCUMENTED)
def test_an_undocumented_name_is_there(owner: Any, name: str, use: str) -> None:
    """It is public by its spelling only."""
    assert hasattr(owner, name), missing(f"{owner.__name__}.{name}", use)


def test_a_stream_counts_its_bytes_and_a_writer_its_output() -> None:
    """`bodies` and `finish_response` read the two counters, which are set in __init__ only."""

    async def counters() -> tuple[int, int]:
        protocol: Any = None
        loop = asyncio.get_running_loop()
        writer = aiohttp.http.StreamWriter(protocol, loop)
        return streams.EMPTY_PAYLOAD.total_bytes, writer.output_size

    assert (0, 0) == asyncio.run(counters())


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_method_that_is_overridden_has_our_parameters(name: str) -> None:
    """The arguments are aiohttp's."""
    theirs = inspect.signature(getattr(web_protocol.RequestHandler, name)).parameters
    ours = inspect.signature(getattr(connections.Connection, name)).parameters

    assert list(theirs) == list(ours), f"aiohttp {aiohttp.__version__}: RequestHandler.{name}"


def test_each_private_name_that_is_used_is_listed() -> None:
    """The lists above are what the sources read and override, less what our own classes define."""
    uses: set[str] = set()
    own: set[str] = set()
    for module in (connections, fast_path, bodies):
        assert module.__file__ is not None
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                uses.add(node.name)
                own.add(node.name)
            elif isinstance(node, ast.Attribute):
                uses.add(node.attr)
                if isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
    own = {name for name in own if not hasattr(web_protocol.RequestHandler, name)}
    private = {name for name in uses - own if name[:1] == "_" != name[1:2]}

    assert OF_PROTOCOL.keys() | OF_SERVER.keys() == private
