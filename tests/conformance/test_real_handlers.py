"""Handlers as people write them, with the packages people use, each through a supervisor.

The handlers are in tests/functions. Those with a requirements.txt get their packages from
the package index, as a deployment would; without an index they are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
from importlib.metadata import distributions, version
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import miniλ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contract import Ask

    from miniλ import Response

    Functions = Callable[[str], Path]

MB = 1024 * 1024

# pip takes longer than a test may.
with_packages = pytest.mark.timeout(300)


def http_event(method: str, path: str, query: str = "", body: str | None = None) -> dict[str, Any]:
    """Return an HTTP request as API Gateway v2 and function URLs send it (payload 2.0)."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "shop.example", "content-type": "application/json"},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "shop",
            "domainName": "shop.example",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "test",
            },
            "requestId": "from-the-gateway",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000",
            "timeEpoch": 1773342238000,
        },
        "isBase64Encoded": False,
    }
    if query:
        event["queryStringParameters"] = dict(pair.split("=") for pair in query.split("&"))
    if body is not None:
        event["body"] = body
    return event


def json_lines(response: Response) -> list[dict[str, Any]]:
    """Return the lines of a log that are JSON objects."""
    return [json.loads(line) for line in response.log.splitlines() if line.startswith("{")]


def http_body(response: Response) -> Any:
    """Return the JSON in the body of an HTTP answer, which may be base64."""
    answer = response.payload
    body = answer["body"]
    return json.loads(base64.b64decode(body) if answer.get("isBase64Encoded") else body)


# Powertools for AWS Lambda


@with_packages
def test_powertools_logger_knows_the_request_and_the_cold_start(
    ask: Ask, functions: Functions
) -> None:
    """Logger's lines carry the request id, the function, and cold_start true only once."""
    event = http_event("GET", "/orders/1")
    responses = ask(functions("powertools"), event, event, memory_size=256)
    lines = []
    for response in responses:
        assert response.failure is None
        [line] = [line for line in json_lines(response) if "looking for" in str(line)]
        assert line["function_request_id"] == response.request_id
        lines.append(line)
    assert [line["cold_start"] for line in lines] == [True, False]
    assert lines[0]["function_name"] == "asked"
    assert lines[0]["function_memory_size"] == "256"
    assert lines[0]["function_arn"].endswith(":function:asked")
    assert lines[0]["correlation_id"] == "from-the-gateway"
    assert lines[0]["order_id"] == "1"


@with_packages
def test_powertools_metrics_are_printed_in_embedded_metric_format(
    ask: Ask, functions: Functions
) -> None:
    """Each invocation prints its metrics as one EMF object; the first adds ColdStart."""
    event = http_event("GET", "/orders/1")
    cold, warm = ask(functions("powertools"), event, event, memory_size=256)
    for response in (cold, warm):
        [blob] = [line for line in json_lines(response) if "OrdersRead" in line]
        [directive] = blob["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Shop"
        assert directive["Metrics"] == [{"Name": "OrdersRead", "Unit": "Count"}]
        assert blob["OrdersRead"] == [1.0]
        assert blob["service"] == "orders"
    starts = [[line for line in json_lines(each) if "ColdStart" in line] for each in (cold, warm)]
    assert [len(blobs) for blobs in starts] == [1, 0]
    assert starts[0][0]["function_name"] == "asked"


@with_packages
def test_powertools_routes_http_events(ask: Ask, functions: Functions) -> None:
    """The resolver answers known routes, raised errors, and 404 for unknown routes."""
    order, created, gone, unknown = ask(
        functions("powertools"),
        http_event("GET", "/orders/1"),
        http_event("POST", "/orders", body='{"item": "chair"}'),
        http_event("GET", "/orders/99"),
        http_event("GET", "/nowhere"),
        memory_size=256,
    )
    assert order.payload["statusCode"] == 200
    assert http_body(order) == {"id": "1", "item": "lamp"}
    assert created.payload["statusCode"] == 201
    assert http_body(created) == {"id": "2", "item": "chair"}
    assert gone.payload["statusCode"] == 404
    assert http_body(gone)["message"] == "no order 99"
    assert unknown.payload["statusCode"] == 404


# FastAPI behind Mangum


@with_packages
def test_fastapi_answers_function_url_events(ask: Ask, functions: Functions) -> None:
    """An ASGI application answers GET, POST, what does not validate, and unknown routes."""
    read, created, invalid, unknown = ask(
        functions("fastapi"),
        http_event("GET", "/items/7", query="detail=true"),
        http_event("POST", "/items", body='{"name": "lamp", "price": 10}'),
        http_event("POST", "/items", body='{"name": "lamp", "price": "much"}'),
        http_event("GET", "/nowhere"),
        memory_size=512,
    )
    assert read.payload["statusCode"] == 200
    assert read.payload["headers"]["content-type"] == "application/json"
    assert http_body(read) == {"number": 7, "detail": True}
    assert created.payload["statusCode"] == 201
    assert http_body(created) == {"name": "lamp", "gross": 12.0}
    assert invalid.payload["statusCode"] == 422
    assert unknown.payload["statusCode"] == 404
    assert http_body(unknown) == {"detail": "Not Found"}


# Packages with compiled parts


@with_packages
def test_numpy_works_in_128_mb(ask: Ask, functions: Functions) -> None:
    """The smallest function holds numpy, which maps far more memory than it uses."""
    small, large = ask(
        functions("numpy_product"),
        {"left": [[1, 2], [3, 4]], "right": [[5, 6], [7, 8]]},
        {"n": 200},
        memory_size=128,
    )
    assert small.payload["product"] == [[19, 22], [43, 50]]
    # The sum of (i + j)(j - i) over all i and j, which is the sum of j^2 - i^2, is 0.
    assert large.payload["trace"] == 0.0
    assert large.report.max_memory_used_mb <= 128


@with_packages
def test_a_function_gets_its_own_msgspec_and_we_keep_ours(ask: Ask, functions: Functions) -> None:
    """A package that the supervisor uses too is the function's own, in its version."""
    code = functions("own_msgspec")
    [installed] = [
        package.version for package in distributions(path=[str(code)]) if package.name == "msgspec"
    ]
    before = (msgspec.__version__, msgspec.__file__)
    [response] = ask(code, {"x": 1, "y": 2})
    answer = response.payload
    assert answer["version"] == installed
    assert answer["file"].startswith(answer["task_root"] + "/msgspec/")
    assert answer["point"] == '{"x":1,"y":2}'
    assert (msgspec.__version__, msgspec.__file__) == before
    assert msgspec.__version__ == version("msgspec")
    assert not msgspec.__file__.startswith(answer["task_root"])


# Processes, threads and logging


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_a_handler_work_and_are_heard(
    ask: Ask, functions: Functions, method: str
) -> None:
    """Children by multiprocessing and subprocess work; what they print is in the log."""
    event = {"numbers": [2, 3, 4], "method": method}
    # Each spawned child is a new interpreter, and 1769 MB are one processor.
    cold, warm = ask(functions("many_processes"), event, event, memory_size=1769, timeout=30)
    for response in (cold, warm):
        assert response.payload == {
            "squares": [4, 9, 16],
            "processes": 4,
            "exit_codes": [0, 0, 0],
            "subprocess": "asked 42",
        }
        for number in (2, 3, 4):
            assert f"child squares {number}\n" in response.log
        assert "subprocess was here\n" in response.log


def test_64_threads_meet_in_128_mb(ask: Ask, functions: Functions) -> None:
    """A function of 128 MB may have 64 threads at once: their stacks are small enough."""
    cold, warm = ask(functions("threads64"), None, None, memory_size=128, timeout=30)
    for response in (cold, warm):
        assert response.payload == {"met": 64, "different": 64, "broken": False}


def test_logging_works_without_configuration(ask: Ask, functions: Functions) -> None:
    """Records from WARNING up are printed in Lambda's form, with the request's own id."""
    [response] = ask(functions("logging_app"), {})
    assert response.payload == {"level": "WARNING"}
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    records = re.findall(rf"^\[(\w+)\]\t{stamp}\t(\S+)\t(.*)$", response.log, re.MULTILINE)
    assert records == [
        ("WARNING", response.request_id, "order 7 is late"),
        ("ERROR", response.request_id, "order 7 is lost"),
        ("ERROR", response.request_id, "no such order"),
        ("CRITICAL", response.request_id, "the shop is closed"),
    ]
    assert "KeyError: 'order 7'" in response.log


def test_a_handler_sets_the_level_of_its_log(ask: Ask, functions: Functions) -> None:
    """The handler may set the root logger; a worker keeps what an invocation set."""
    first, second, third = ask(functions("logging_app"), {"level": "INFO"}, {}, {"level": "DEBUG"})
    for response in (first, second):
        assert f"\t{response.request_id}\torder 7 is here\n" in response.log
        assert "a detail" not in response.log
    assert f"\t{third.request_id}\ta detail of order 7\n" in third.log


# Loads


def test_a_cpu_load_computes_what_is_right(ask: Ask, functions: Functions) -> None:
    """Primes below 10,000, a known XTEA block and a closed form come out as elsewhere."""
    primes, cipher, chain, floats = ask(
        functions("cpu_load"),
        {"operation": "primes", "n": 10_000},
        {"operation": "cipher", "n": 1},
        {"operation": "cipher", "n": 50},
        {"operation": "floats", "n": 5_000},
        memory_size=1769,
    )
    assert primes.payload == {"result": 1229}
    # The published test vector: key 00..0f, "ABCDEFGH".
    assert cipher.payload == {"result": "497df3d072612cb5"}
    assert re.fullmatch("[0-9a-f]{16}", chain.payload["result"])
    assert math.isclose(floats.payload["result"], 5_000, rel_tol=1e-9)


def pages_sum(mb: int) -> int:
    """Return the checksum that memory_load has to come to."""
    return sum(number % 251 for number in range(mb * MB // 4096))


def test_reported_memory_follows_what_is_used(ask: Ask, functions: Functions) -> None:
    """Max Memory Used is the peak of the worker, and not its memory size."""
    small, large = ask(functions("memory_load"), {"mb": 1}, {"mb": 100}, memory_size=512)
    for response, mb in ((small, 1), (large, 100)):
        assert response.payload == {"bytes": mb * MB, "checksum": pages_sum(mb)}
    used = [response.report.max_memory_used_mb for response in (small, large)]
    assert 0 < used[0] < 60
    assert 100 <= used[1] < 160
    assert f"\tMax Memory Used: {used[1]} MB\t" in large.log


def test_a_function_that_takes_400_of_128_mb_fails_and_the_next_does_not(
    ask: Ask, functions: Functions
) -> None:
    """Too much memory ends one invocation: by MemoryError or by a kill of the worker."""
    greedy, modest = ask(functions("memory_load"), {"mb": 400}, {"mb": 20}, memory_size=128)
    failure = greedy.failure
    assert failure is not None
    if failure.error_type != "MemoryError":
        assert failure.error_type == "Runtime.ExitError"
        assert failure.error_message.endswith("signal: killed")
    assert modest.payload == {"bytes": 20 * MB, "checksum": pages_sum(20)}


def test_a_function_that_touches_200_of_128_mb_fails_and_the_next_does_not(
    ask: Ask, functions: Functions
) -> None:
    """Also what RLIMIT_DATA lets through, for its slack, a function may not hold."""
    greedy, modest = ask(functions("memory_load"), {"mb": 200}, {"mb": 20}, memory_size=128)
    if not greedy.report.limits["memory"].startswith("hard"):
        pytest.skip(f"memory is held softly here: {greedy.report.limits['memory']}")
    failure = greedy.failure
    assert failure is not None
    assert failure.error_type in ("MemoryError", "Runtime.ExitError")
    assert greedy.report.max_memory_used_mb <= 128
    assert modest.payload == {"bytes": 20 * MB, "checksum": pages_sum(20)}


def test_a_disk_load_reads_back_what_it_wrote(ask: Ask, functions: Functions) -> None:
    """Temporary files land in the worker's own /tmp, and hold what was written."""
    expected = hashlib.sha256()
    for number in range(64):
        expected.update(number.to_bytes(4, "big") * (256 * 1024 // 4))
    first, second = ask(functions("disk_load"), {"mb": 16}, {"mb": 16}, memory_size=512)
    for response in (first, second):
        assert response.payload["bytes"] == 16 * MB
        assert response.payload["sha256"] == expected.hexdigest()
    assert first.payload["directory"] == second.payload["directory"]


def test_workers_do_not_share_a_tmp(functions: Functions) -> None:
    """Functions of one supervisor write to directories of their own."""

    async def scenario() -> list[Response]:
        async with miniλ.Supervisor() as supervisor:
            for name in ("left", "right"):
                await supervisor.create_function(
                    name, functions("disk_load"), "app.handler", memory_size=512, timeout=10
                )
            return await asyncio.gather(
                *(supervisor.invoke(name, {"mb": 8}, wait=10) for name in ("left", "right"))
            )

    left, right = asyncio.run(scenario())
    assert left.payload["sha256"] == right.payload["sha256"]
    assert left.payload["beside"] == right.payload["beside"] == []


def test_a_function_greets(ask: Ask, functions: Functions) -> None:
    """The smallest handler there is, with a variable of its environment."""
    plain, named = ask(functions("hello"), {}, {"name": "Ada"}, environment={"GREETING": "Moin"})
    assert plain.payload == {"message": "Moin, world!"}
    assert named.payload == {"message": "Moin, Ada!"}
