"""The states of a function: Pending, Active, Failed, and what a later server finishes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import WaiterError

import miniλ
from tests.api.conftest import ECHO, RUNTIME, Server, serving, updated
from tests.api.plain_http import until
from tests.api.refusals import CONFLICT, INVALID, refused, told
from tests.api.test_functions import ARN, ELSEWHERE, ZIP, answered, download, new, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient

NOT_NOW = "The operation cannot be performed at this time. "
# A Python that is not the one of these tests.
OTHER = next(name for name in ("python3.12", "python3.13") if name != RUNTIME)


def test_a_runtime_that_is_not_here_ends_in_failed(client: BaseClient) -> None:
    """A function for it can be made: it says why it cannot run, cannot be invoked, and goes."""
    answer = client.create_function(**new("elsewhere", Runtime=ELSEWHERE))
    after = settled(client, "elsewhere")
    invoked = refused(client.invoke, FunctionName="elsewhere")
    published = refused(client.publish_version, FunctionName="elsewhere")
    code = refused(client.update_function_code, FunctionName="elsewhere", ZipFile=ZIP, Publish=True)
    client.delete_function(FunctionName="elsewhere")

    assert "Pending" == answer["State"]
    assert ("Failed", "InvalidRuntime") == (after["State"], after["StateReasonCode"])
    assert f"got '{ELSEWHERE}'; here: " in after["StateReason"]
    failed = f"{NOT_NOW}The function is currently in the following state: Failed"
    assert (409, CONFLICT, failed) == invoked == published
    assert (400, INVALID) == code[:2]
    assert 404 == refused(client.get_function, FunctionName="elsewhere")[0]


@pytest.mark.parametrize(
    ("runtime", "handler"), [("provided.al2023", "bootstrap"), ("java21", "Hello::run")]
)
def test_handlers_of_other_languages_are_taken(
    client: BaseClient, runtime: str, handler: str
) -> None:
    """They need no dot: such a function fails for its runtime, and not for its handler."""
    client.create_function(**new("handled", Runtime=runtime, Handler=handler))
    after = settled(client, "handled")
    client.delete_function(FunctionName="handled")

    assert (handler, "InvalidRuntime") == (after["Handler"], after["StateReasonCode"])


def test_a_function_that_failed_is_made_whole(client: BaseClient) -> None:
    """Given a runtime that is here, it becomes active and runs."""
    client.create_function(**new("mended", Runtime=ELSEWHERE))
    settled(client, "mended")
    client.update_function_configuration(FunctionName="mended", Runtime=RUNTIME)
    after = updated(client, "mended")
    payload = answered(client, "mended", Payload=b"1")
    client.delete_function(FunctionName="mended")

    assert ("Active", "Successful") == (after["State"], after["LastUpdateStatus"])
    assert set() == {"StateReason", "StateReasonCode"} & after.keys()
    assert 1 == payload


class Gate:
    """A server to which `OTHER` is a program that waits until `open` is called."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.client = server.client()
        self._directory = directory

    def open(self) -> None:
        """Let the program go on; it says that it is no such Python."""
        (self._directory / "opened").touch()
        (self._directory / "gate").write_text("\n", encoding="ascii")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a server that can be kept in the middle of a change."""
    os.mkfifo(tmp_path / "gate")
    program = tmp_path / OTHER
    program.write_text(f"#!/bin/sh\n[ -e {tmp_path}/opened ] || read _ < {tmp_path}/gate\nexit 1\n")
    program.chmod(0o755)
    # Ours only: this machine may have such a Python.
    others = [path for path in os.get_exec_path() if not (Path(path) / OTHER).exists()]
    with serving(PATH=os.pathsep.join([str(tmp_path), *others])) as running:
        gate = Gate(running, tmp_path)
        yield gate
        gate.client.close()


def test_a_pending_function_is_not_changed_and_not_run(gate: Gate) -> None:
    """Both are a conflict that names the state; it can be deleted, and its name taken again."""
    client = gate.client
    client.create_function(**new("slow", Runtime=OTHER))
    pending = f"{NOT_NOW}The function is currently in the following state: Pending"

    assert (409, CONFLICT, pending) == refused(client.invoke, FunctionName="slow")
    for operation, parameters in (
        (client.update_function_configuration, {"Timeout": 5}),
        (client.update_function_code, {"ZipFile": ZIP}),
        (client.publish_version, {}),
    ):
        got = refused(operation, FunctionName="slow", **parameters)
        assert (409, CONFLICT, pending) == got
    client.delete_function(FunctionName="slow")
    client.create_function(**new("slow"))
    gate.open()
    assert "Active" == settled(client, "slow")["State"]
    assert 5 == answered(client, "slow", Payload=b"5")


def test_a_second_update_meanwhile_is_a_conflict(gate: Gate) -> None:
    """In AWS's words; the old version runs meanwhile, and stays if the update fails."""
    client = gate.client
    client.create_function(**new("busy", Description="old"))
    before = settled(client, "busy")
    client.update_function_configuration(FunctionName="busy", Runtime=OTHER, Description="new")
    busy = f"{NOT_NOW}An update is in progress for resource: {ARN}:busy"
    for operation, parameters in (
        (client.update_function_configuration, {"Timeout": 5}),
        (client.update_function_code, {"ZipFile": ZIP}),
        (client.publish_version, {}),
    ):
        got = refused(operation, FunctionName="busy", **parameters)
        assert (409, CONFLICT, busy) == got
    meanwhile = answered(client, "busy", Payload=b"6")
    gate.open()
    with pytest.raises(WaiterError, match="Failed"):
        updated(client, "busy")
    after = told(client.get_function_configuration(FunctionName="busy"))

    assert 6 == meanwhile
    reason = after.pop("LastUpdateStatusReason")
    assert f"Runtime {OTHER} is not on this machine; here: " in reason
    assert "InvalidRuntime" == after.pop("LastUpdateStatusReasonCode")
    assert {**before, "LastUpdateStatus": "Failed"} == after
    assert 8 == answered(client, "busy", Payload=b"8")
    client.update_function_configuration(FunctionName="busy", Description="newer")
    assert "Successful" == updated(client, "busy")["LastUpdateStatus"]


# Kept


def test_what_one_makes_another_finds(tmp_path: Path) -> None:
    """A state directory has the same functions for a server, for a second, and for an app."""
    state = str(tmp_path / "state")
    with serving("--state", state) as first:
        client = first.client()
        for name in ("kept", "gone"):
            client.create_function(
                **new(name, Publish=True, Tags={"team": "a"}, Description="of the server")
            )
            settled(client, name)
        client.create_function(**new("elsewhere", Runtime=ELSEWHERE))
        settled(client, "elsewhere")
        client.create_alias(FunctionName="kept", Name="live", FunctionVersion="1")
        client.delete_function(FunctionName="gone")
        before = client.get_function(FunctionName="kept")
        client.close()
        first.stop()

    async def embedded() -> list[Any]:
        async with miniλ.Supervisor(state=state) as supervisor:
            responses = [
                await supervisor.invoke(name, 1) for name in ("kept", "kept:1", "kept:live")
            ]
            await supervisor.create_function("embedded", tmp_path / "code", "app.handler")
            await supervisor.update_function_configuration("kept", memory_size=256)
            names = [function.name for function in supervisor.list_functions()]
        return [names, [(each.payload, each.executed_version) for each in responses]]

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(ECHO)
    names, answers = asyncio.run(embedded())
    assert ["elsewhere", "embedded", "kept"] == names
    assert [(1, "$LATEST"), (1, "1"), (1, "1")] == answers
    with serving("--state", state) as second:
        client = second.client()
        after = client.get_function(FunctionName="kept")
        alias = client.get_alias(FunctionName="kept", Name="live")
        payloads = [
            answered(client, name, Payload=b"2") for name in ("kept", "kept:live", "embedded")
        ]
        failed = client.get_function_configuration(FunctionName="elsewhere")
        made = download(client, "embedded")
        client.close()

    assert (
        256 == after["Configuration"].pop("MemorySize") != before["Configuration"].pop("MemorySize")
    )
    for changed in ("RevisionId", "LastModified"):
        del after["Configuration"][changed], before["Configuration"][changed]
    assert before["Configuration"] == after["Configuration"]
    assert {"team": "a"} == after["Tags"]
    assert "1" == alias["FunctionVersion"]
    assert [2, 2, 2] == payloads
    assert ("Failed", "InvalidRuntime") == (failed["State"], failed["StateReasonCode"])
    assert b"PK" == made[:2]


def test_a_change_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """A server that is killed in the middle of a creation has that function when it comes again.

    And of what it had started, an interpreter that never says anything, nothing is left.
    """
    state = str(tmp_path / "state")
    os.mkfifo(tmp_path / "gate")
    program = tmp_path / OTHER
    pid = tmp_path / "pid"
    program.write_text(
        f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nread _ < {tmp_path}/gate\n"
    )
    program.chmod(0o755)
    with serving("--state", state, PATH=f"{tmp_path}:{os.environ['PATH']}") as first:
        client = first.client()
        client.create_function(**new("cut", Runtime=OTHER))
        assert "Pending" == client.get_function_configuration(FunctionName="cut")["State"]
        client.close()
        until(pid.exists)
        first.process.kill()
        first.process.wait()
    program.unlink()
    left = Path("/proc", pid.read_text().strip())
    assert left.exists()
    with serving("--state", state) as second:
        client = second.client()
        after = settled(client, "cut")
        client.close()

    assert after["State"] in {"Active", "Failed"}
    until(lambda: not left.exists())  # its new parent reaps it
