"""Changes that meet: each acts on what is there when its turn comes, and is one step.

Operations are called as the gateway calls them, in one process, so that a test decides their
order: they queue for the lock `changing` first come, first served.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

import miniλ
from miniλ.errors import ServiceError
from miniλ.gateway.call import Call
from miniλ.gateway.server import DOCUMENTS, Gateway
from miniλ.gateway.service_model.operations import OPERATIONS
from miniλ.settings import S3Settings, Settings
from miniλ.store.packages import Upload
from miniλ.store.resources import ALIAS, KINDS, PROVISIONED
from tests.api.conftest import ROLE, RUNTIME, archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead"
# A runtime that Lambda has, and that this host has not.
ELSEWHERE = "nodejs22.x"

_numbers = itertools.count()


def answering(text: str) -> bytes:
    """Return the archive of a function that answers with a text."""
    return archive(app=f"def handler(event, context):\n    return {text!r}\n")


class Bench:
    """A supervisor with a gateway, whose operations are called without HTTP."""

    def __init__(self, supervisor: miniλ.Supervisor, gateway: Gateway) -> None:
        self.supervisor = supervisor
        self.functions = supervisor.functions
        self._api = gateway._api

    async def do(self, operation: str, code: bytes | None = None, **params: Any) -> Any:
        """Do an operation, with an archive that was sent along."""
        place = self.functions.place
        call = Call(self._api, OPERATIONS[operation], params, place, "request", "")
        if code is not None:
            path = self._api.uploads / f"{next(_numbers)}.zip"
            path.write_bytes(code)
            call.upload = Upload(path)
        return await DOCUMENTS[operation](call)

    async def settled(self) -> None:
        """Wait until no change is in progress."""
        await self.functions._settling.finish()

    async def make(self, name: str = "f", **params: Any) -> None:
        """Create a function that answers 0."""
        await self.do(
            "CreateFunction",
            answering("0"),
            FunctionName=name,
            **{"Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", "Code": {}, **params},
        )
        await self.settled()

    async def publish(self, code: str, name: str = "f") -> str:
        """Give a function code that answers with a text, and return its new version."""
        made = await self.do("UpdateFunctionCode", answering(code), FunctionName=name, Publish=True)
        return str(made["Version"])

    async def in_turn(self, *works: Coroutine[Any, Any, Any]) -> list[Any]:
        """Let works begin while another change runs, and be carried out in their order.

        Returns their answers, and the errors of ours.
        """
        waiting = self.functions.changing
        async with waiting:
            tasks = []
            for number, work in enumerate(works, 1):
                tasks.append(asyncio.create_task(work))
                while len(waiting._waiters or ()) < number:
                    assert not tasks[-1].done()
                    await asyncio.sleep(0)
        return await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Bench]:
    """Open a bench."""
    async with (
        miniλ.Supervisor(settings=Settings(**settings)) as supervisor,
        Gateway(supervisor, port=0) as gateway,
    ):
        yield Bench(supervisor, gateway)


def run(scenario: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario on a bench."""

    async def main() -> None:
        async with opened(**settings) as bench:
            await scenario(bench)

    asyncio.run(main())


# What is set meanwhile stays


def test_an_update_from_s3_keeps_what_is_set_while_the_object_comes() -> None:
    """The object comes for minutes; a dead-letter queue that is set meanwhile is not lost."""
    benches: list[Bench] = []

    async def answer(_: web.BaseRequest) -> web.Response:
        (bench,) = benches
        await bench.do(
            "UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={"TargetArn": QUEUE}
        )
        await bench.settled()
        return web.Response(body=answering("1"))

    async def main() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with opened(s3=S3Settings(endpoint, "key", "secret")) as bench:
                benches.append(bench)
                await bench.make()
                await bench.do(
                    "UpdateFunctionCode",
                    FunctionName="f",
                    S3Bucket="b",
                    S3Key="k",
                    Architectures=["arm64"],
                )
                await bench.settled()
                document = await bench.do("GetFunctionConfiguration", FunctionName="f")
        finally:
            await runner.cleanup()

        assert {"TargetArn": QUEUE} == document["DeadLetterConfig"]
        assert ["arm64"] == document["Architectures"]

    asyncio.run(main())


def test_changes_of_two_members_are_both_kept() -> None:
    """Neither has read what the other changes before its turn."""

    async def scenario(bench: Bench) -> None:
        await bench.make()
        members = {
            "DeadLetterConfig": {"TargetArn": QUEUE},
            "TracingConfig": {"Mode": "Active"},
            "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k",
        }
        await bench.in_turn(
            *(
                bench.functions.update("f", {"passthrough": {name: value}})
                for name, value in members.items()
            )
        )

        assert members == bench.functions.get("f").passthrough

    run(scenario)


def test_a_reservation_is_held_against_what_is_provisioned_when_its_turn_comes() -> None:
    """Else a function would have fewer invocations than workers that wait for them."""

    async def scenario(bench: Bench) -> None:
        await bench.make()
        version = await bench.publish("1")
        _, refusal = await bench.in_turn(
            bench.do(
                "PutProvisionedConcurrencyConfig",
                FunctionName="f",
                Qualifier=version,
                ProvisionedConcurrentExecutions=2,
            ),
            bench.do("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1),
        )

        assert isinstance(refusal, miniλ.InvalidParameterValue)
        assert bench.functions.get("f").reserved_concurrency is None

    run(scenario, concurrency=8)


# An operation of each sort that writes something of a function, and what it is told.
WRITES: dict[str, dict[str, Any]] = {
    "UpdateFunctionConfiguration": {"Timeout": 9},
    "UpdateFunctionCode": {},
    "PublishVersion": {},
    "PutFunctionConcurrency": {"ReservedConcurrentExecutions": 1},
    "DeleteFunctionConcurrency": {},
    "PutProvisionedConcurrencyConfig": {"Qualifier": "1", "ProvisionedConcurrentExecutions": 1},
    "CreateAlias": {"Name": "new", "FunctionVersion": "1"},
    "UpdateAlias": {"Name": "prod", "Description": "other"},
    "DeleteAlias": {"Name": "prod"},
    "AddPermission": {"StatementId": "s", "Action": "lambda:*", "Principal": "*"},
    "PutFunctionEventInvokeConfig": {"MaximumRetryAttempts": 1},
    "UpdateFunctionEventInvokeConfig": {"MaximumRetryAttempts": 1},
    "CreateFunctionUrlConfig": {"AuthType": "NONE"},
    "PutFunctionRecursionConfig": {"RecursiveLoop": "Allow"},
    "PutRuntimeManagementConfig": {"UpdateRuntimeOn": "Auto"},
    "CreateEventSourceMapping": {"EventSourceArn": QUEUE},
}


@pytest.mark.parametrize("operation", WRITES)
def test_nothing_is_written_of_a_function_that_was_deleted_meanwhile(operation: str) -> None:
    """The deletion has its turn first: the operation finds no function, and leaves nothing."""

    async def scenario(bench: Bench) -> None:
        await bench.make()
        await bench.publish("1")
        alias = {"Name": "prod", "FunctionVersion": "1"}
        await bench.do("CreateAlias", FunctionName="f", **alias)
        code = answering("2") if operation == "UpdateFunctionCode" else None
        _, refusal = await bench.in_turn(
            bench.do("DeleteFunction", FunctionName="f"),
            bench.do(operation, code, FunctionName="f", **WRITES[operation]),
        )

        assert isinstance(refusal, miniλ.ResourceNotFound | miniλ.InvalidParameterValue)
        registry = bench.supervisor.parts.registry
        assert [] == [kind for kind in KINDS.values() if registry.names(kind)]

    run(scenario)


# A version is made in the step of its update


@pytest.mark.parametrize("waits", [False, True], ids=["answered at once", "waited for"])
def test_a_version_holds_the_code_that_it_was_published_with(*, waits: bool) -> None:
    """Another update comes right behind: the version is of the first, $LATEST of the second."""

    async def scenario(bench: Bench) -> None:
        await bench.make()
        published, _ = await bench.in_turn(
            bench.publish("1"),
            bench.publish("2")
            if waits
            else bench.do("UpdateFunctionCode", answering("2"), FunctionName="f"),
        )
        await bench.settled()

        assert "1" == published
        assert "1" == (await bench.supervisor.invoke("f:1")).payload
        assert "2" == (await bench.supervisor.invoke("f")).payload

    run(scenario)


def test_the_same_code_is_published_once_and_numbers_do_not_go_back() -> None:
    """An update that changes nothing answers with the last version; a deleted number stays used."""

    async def scenario(bench: Bench) -> None:
        await bench.make()
        numbers = [await bench.publish(code) for code in ("1", "1", "2")]
        await bench.do("DeleteFunction", FunctionName="f", Qualifier="2")
        numbers += [await bench.publish(code) for code in ("1", "2")]

        assert ["1", "1", "2", "1", "3"] == numbers

    run(scenario)


# Provisioned concurrency stays until the change is certain


async def _fails(*_: object, **__: object) -> None:
    msg = "The registry cannot be written: disk I/O error"
    raise ServiceError(msg)


PROVISIONED_CHANGES: dict[str, dict[str, Any]] = {
    "UpdateAlias": {"Name": "prod", "FunctionVersion": "3"},
    "DeleteAlias": {"Name": "prod"},
    "DeleteProvisionedConcurrencyConfig": {"Qualifier": "prod"},
    "PutProvisionedConcurrencyConfig": {
        "Qualifier": "prod",
        "ProvisionedConcurrentExecutions": 2,
    },
}


async def _provisioned(bench: Bench) -> None:
    """Make a version 1 that failed, 2 and 3; `prod` is 2, which has a worker."""
    await bench.make(Runtime=ELSEWHERE, Publish=True)
    await bench.functions.update("f", {"runtime": RUNTIME})
    assert ["2", "3"] == [await bench.publish("2"), await bench.publish("3")]
    await bench.do("CreateAlias", FunctionName="f", Name="prod", FunctionVersion="2")
    await bench.do(
        "PutProvisionedConcurrencyConfig",
        FunctionName="f",
        Qualifier="prod",
        ProvisionedConcurrentExecutions=1,
    )


def _kept(bench: Bench) -> tuple[str, int, int]:
    """Return the version of `prod`, and the workers that are to be kept: written, and in force."""
    registry = bench.supervisor.parts.registry
    alias = registry.get(ALIAS, "f", "prod")
    config = registry.get(PROVISIONED, "f", "prod")
    assert alias is not None
    assert config is not None
    pool = bench.supervisor.parts.pool
    version = pool._versions[bench.functions.get("f", "prod").revision]
    return alias.version, config["Requested"], version.provisioned_target


def test_an_alias_that_cannot_move_keeps_its_workers() -> None:
    """The version that it is to point to failed: nothing has changed."""

    async def scenario(bench: Bench) -> None:
        await _provisioned(bench)
        with pytest.raises(miniλ.ResourceConflict, match="Failed"):
            await bench.do("UpdateAlias", FunctionName="f", Name="prod", FunctionVersion="1")

        assert ("2", 1, 1) == _kept(bench)

    run(scenario, concurrency=8)


@pytest.mark.parametrize("operation", PROVISIONED_CHANGES)
def test_a_change_that_cannot_be_written_keeps_the_workers(operation: str) -> None:
    """What is written and what is in force stay the same."""

    async def scenario(bench: Bench) -> None:
        await _provisioned(bench)
        registry = bench.supervisor.parts.registry
        write = registry.write
        registry.write = _fails  # type: ignore[method-assign]
        try:
            with pytest.raises(ServiceError):
                await bench.do(operation, FunctionName="f", **PROVISIONED_CHANGES[operation])
        finally:
            registry.write = write  # type: ignore[method-assign]

        assert ("2", 1, 1) == _kept(bench)

    run(scenario, concurrency=8)


def test_a_moved_alias_takes_its_workers_along_even_if_both_would_not_fit() -> None:
    """Those of the old version are given up for those of the new one."""

    async def scenario(bench: Bench) -> None:
        await _provisioned(bench)
        await bench.do(
            "PutProvisionedConcurrencyConfig",
            FunctionName="f",
            Qualifier="prod",
            ProvisionedConcurrentExecutions=5,
        )
        await bench.do("UpdateAlias", FunctionName="f", Name="prod", FunctionVersion="3")

        assert ("3", 5, 5) == _kept(bench)

    run(scenario, concurrency=8)
