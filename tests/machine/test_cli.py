"""The command line: its exit codes, its stdout and stderr, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ.cli import doctor
from miniλ.runtimes import catalog
from miniλ.sandbox import levels
from tests.command import SUBJECT, Done, check_report, finish, run, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# A shim of pyenv whose version is not chosen, with what it prints.
PYENV = """#!/bin/sh
cat >&2 <<'END'

pyenv: python3.9: command not found

The `python3.9' command exists in these Python versions:
  3.9.18

Note: See 'pyenv help global' for tips on allowing both
      python2 and python3 to be found.
END
exit 127
"""


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> str:
    """Return DIR:HANDLER of a function that does what its event names."""
    return f"{function_directory('subject', app=SUBJECT)}:app.handler"


# invoke


def test_the_payload_is_alone_on_stdout(subject: str) -> None:
    """The log, with START, the printed lines, END and REPORT, is on stderr."""
    done = run("invoke", subject, "-e", '{"say": "hello"}')

    assert (0, '"hello"\n') == (done.code, done.out)
    lines = [line.split(" ", 1)[0] for line in done.err.splitlines()]
    assert ["START", "hello", "END", "REPORT"] == lines
    assert "\tInit Duration: " in done.err


def test_an_event_is_json_a_file_or_stdin(subject: str, tmp_path: Path) -> None:
    """-e takes all three; without it the event is {}."""
    file = tmp_path / "event.json"
    file.write_text('{"from": "file"}', encoding="utf-8")

    assert {} == run("invoke", subject).document
    assert [1] == run("invoke", subject, "-e", " [1]").document
    assert 7 == run("invoke", subject, "-e", "7").document
    assert {"from": "file"} == run("invoke", subject, "-e", file).document
    assert {"from": "stdin"} == run(
        "invoke", subject, "-e", "-", stdin=b'{"from":"stdin"}'
    ).document


def test_limits_and_environment_reach_the_function(subject: str) -> None:
    """The function sees --memory-size, --timeout and --env; of two variables the last wins."""
    limits = run("invoke", subject, "-e", '"limits"', "--memory-size", "256", "--timeout", "9")
    variable = run("invoke", subject, "-e", '{"env":"KEY"}', "--env", "KEY=1", "--env", "KEY=a=b")

    memory, milliseconds = limits.document
    assert "256" == str(memory)
    assert 8000 < milliseconds <= 9000
    assert "Memory Size: 256 MB" in limits.err
    assert "a=b" == variable.document


def test_json_is_payload_log_and_report_in_one_document(subject: str) -> None:
    """With --json stderr is empty, also if the function failed."""
    fine = run("invoke", subject, "-e", '{"say": "hello"}', "--json")
    failed = run("invoke", subject, "-e", '"fail"', "--json")

    assert (0, "") == (fine.code, fine.err)
    assert ["payload", "failure", "log", "report"] == list(fine.document)
    assert "hello" == fine.document["payload"]
    assert fine.document["failure"] is None
    assert "hello" in fine.document["log"]
    report = fine.document["report"]
    assert 128 == report["memory_size_mb"]
    assert report["cold"]
    assert report["request_id"] in fine.document["log"]
    assert {"hard", "soft", "none"} >= {text.split(":")[0] for text in report["limits"].values()}
    assert (1, "") == (failed.code, failed.err)
    assert "ValueError" == failed.document["payload"]["errorType"]


def test_a_traceback_is_unfolded_for_a_terminal(subject: str) -> None:
    """Its lines end with newlines on stderr; --json keeps the carriage returns of the log."""
    done = run("invoke", subject, "-e", '"fail"')
    as_json = run("invoke", subject, "-e", '"fail"', "--json")

    assert "\r" not in done.err
    assert "[ERROR] ValueError: no\nTraceback (most recent call last):\n" in done.err
    assert "[ERROR] ValueError: no\rTraceback (most recent call last):\r" in as_json.document["log"]


@pytest.mark.parametrize(
    ("event", "code", "kind"),
    [
        ('"fine"', 0, ""),
        ('"fail"', 1, "ValueError"),
        ('"sleep"', 124, "Sandbox.Timedout"),
        ('"kill"', 137, "Runtime.ExitError"),
    ],
)
def test_the_exit_code_says_how_the_function_ended(
    subject: str, event: str, code: int, kind: str
) -> None:
    """0 succeeded, 1 failed, 124 timed out, 137 killed; the failure is the payload."""
    done = run("invoke", subject, "-e", event, "--timeout", "1")

    assert code == done.code
    assert kind == (done.document["errorType"] if code else "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invoke", "{gone}"], "gone"),
        (["invoke", "no/colon"], "DIR:HANDLER"),
        (["invoke", "{subject}", "-e", "{"], "--event is not JSON: '{': Input data was truncated"),
        (["invoke", "{subject}", "-e", "{'a': 1}"], "(byte 1); JSON needs double quotes\n"),
        (
            ["invoke", "{subject}", "-e", "gone.json"],
            "There is no file 'gone.json', and it is not JSON: JSON is malformed",
        ),
        (["invoke", "{subject}", "-e", "x" * 5000], "There is no file 'xxx"),
        (["invoke", "{subject}", "-e", "[" * 50000], "--event is not JSON: '[[["),
        (["invoke", "{subject}", "-e", b'"\xff"'], "--event is not JSON: '"),
        (["invoke", "{subject}", "-e", "{root}"], "--event"),
        (["invoke", "{subject}", "-e", "{file}"], "/file' is not JSON: JSON is malformed"),
        (["invoke", "{subject}", "-e", "-"], "stdin is not JSON: Input data was truncated"),
        (
            ["invoke", "./gone:app"],
            "HANDLER must be module.function like app.handler, got 'app'",
        ),
        (["invoke", "{subject}", "--memory-size", "64"], "128 to 10240 MB, got 64"),
        (["invoke", "{subject}", "--memory-size", "much"], "'much'"),
        (["invoke", "{subject}", "--timeout", "0"], "1 to 900 seconds, got 0"),
        (["invoke", "{subject}", "--runtime", "cobol85"], "python3.14, got 'cobol85'"),
        (["invoke", "{subject}", "--env", "KEY"], "K=V, got 'KEY'"),
        (["invoke", "{subject}", "--env", "1=1"], "'1'"),
        (["invoke", "{subject}", "--repeat", "0"], "--repeat"),
        (["invoke"], "DIR:HANDLER"),
        (["bill", "--state", "{gone}"], "no ledger"),
        (["bill"], "--state"),
        (["mend"], "mend"),
    ],
)
def test_usage_is_exit_code_2(
    arguments: list[str | bytes], message: str, subject: str, tmp_path: Path
) -> None:
    """A wrong argument is named on stderr with its value, without a traceback; stdout is empty."""
    (tmp_path / "file").write_text("no json", encoding="utf-8")
    places = {
        "{subject}": subject,
        "{gone}": f"{tmp_path}/gone:app.handler",
        "{root}": str(tmp_path),
        "{file}": str(tmp_path / "file"),
    }
    done = run(*(a if isinstance(a, bytes) else places.get(a, a) for a in arguments))

    assert (2, "") == (done.code, done.out)
    assert message in done.err
    assert "request body" not in done.err
    assert len(done.err) < 1000


def test_a_runtime_that_is_not_installed_is_exit_code_3(subject: str) -> None:
    """The message lists the installed ones, and says what to do."""
    done = run("invoke", subject, "--runtime", "python3.9", env={"PATH": "/nonexistent"})

    assert (3, "") == (done.code, done.out)
    assert f"python3.9 is not on this machine; here: {catalog.own()}" in done.err
    assert done.err.endswith(f"Put python3.9 on PATH; or use --runtime {catalog.own()}\n")


def test_a_shim_of_pyenv_has_its_first_line_in_the_message(subject: str, tmp_path: Path) -> None:
    """The lines after it are help about pyenv."""
    shim = tmp_path / "python3.9"
    shim.write_text(PYENV, encoding="utf-8")
    shim.chmod(0o755)
    done = run("invoke", subject, "--runtime", "python3.9", env={"PATH": f"{tmp_path}:/bin"})

    assert (3, "") == (done.code, done.out)
    reason = f"{shim}: pyenv: python3.9: command not found"
    assert f"Put python3.9 on PATH; {reason}; or use --runtime {catalog.own()}\n" in done.err


def test_a_state_in_use_is_exit_code_75(subject: str, tmp_path: Path) -> None:
    """The message has the directory, the pid of the process that holds it, and what to do."""
    (tmp_path / "link").symlink_to("state")

    async def scenario() -> Done:
        async with miniλ.Supervisor(tmp_path / "state"):
            return await asyncio.to_thread(run, "invoke", subject, "--state", tmp_path / "link")

    done = asyncio.run(scenario())

    assert (75, "") == (done.code, done.out)
    assert (
        f"{tmp_path / 'state'} is in use by process {os.getpid()}: stop it, or take another "
        "state directory\n"
    ) in done.err


def test_invalid_settings_are_exit_code_2(subject: str) -> None:
    """The message names the setting, for invoke and for doctor."""
    for command in (["invoke", subject], ["doctor"]):
        unknown = run(*command, env={"MINILAMBDA_CGROUP": "banana"})
        assert 2 == unknown.code
        assert "banana" in unknown.err


# invoke --repeat


def test_repeat_prints_percentiles(subject: str) -> None:
    """The last payload is on stdout, one line of numbers on stderr; a pipe gets no bar."""
    done = run("invoke", subject, "-e", '{"a": 1}', "--repeat", "20", "--concurrency", "4")

    assert (0, {"a": 1}) == (done.code, done.document)
    assert 1 == len(done.err.splitlines())
    summary = dict(item.split(" ") for item in done.err.strip().split(", "))
    assert "20" == summary["invocations"]
    assert 1 <= int(summary["cold_starts"]) <= 4
    assert float(summary["p50_ms"]) <= float(summary["p90_ms"]) <= float(summary["p99_ms"])
    assert float(summary["p99_ms"]) <= float(summary["max_ms"])


def test_repeat_gives_its_summary_as_json(subject: str) -> None:
    """With --json it is one document; the exit code is the worst of all invocations."""
    fine = run("invoke", subject, "--repeat", "20", "--concurrency", "4", "--json")
    failed = run("invoke", subject, "-e", '"fail"', "--repeat", "3", "--json")

    assert (0, "") == (fine.code, fine.err)
    assert {} == fine.document["payload"]
    assert 20 == fine.document["summary"]["invocations"]
    assert 0 < fine.document["summary"]["p50_ms"] <= fine.document["summary"]["max_ms"]
    assert 1 == failed.code
    assert "ValueError" == failed.document["payload"]["errorType"]


# Text and signals


@pytest.mark.parametrize("env", [{}, {"PYTHONIOENCODING": "ascii"}])
@pytest.mark.parametrize("extra", [[], ["--json"], ["--repeat", "2"]])
def test_no_locale_harms_text(subject: str, extra: list[str], env: dict[str, str]) -> None:
    """With LANG=C the event, the payload and the log keep every character."""
    text = "Grüße, λ, 日本, 🎉"
    event = json.dumps({"say": text}, ensure_ascii=False).encode()
    done = run("invoke", subject, "-e", event, *extra, env={"LANG": "C", "LC_ALL": "C", **env})

    assert 0 == done.code
    assert text == (done.document["payload"] if "--json" in extra else done.document)
    if extra == ["--json"]:
        assert text in done.document["log"]
    elif not extra and not env:
        assert text in done.err


@pytest.mark.parametrize(
    ("number", "times", "extra"),
    [
        (signal.SIGTERM, 1, []),
        (signal.SIGINT, 1, ["--repeat", "2", "--concurrency", "2"]),
        (signal.SIGINT, 5, []),
    ],
)
def test_a_signal_ends_it_and_all_it_started(
    subject: str, tmp_path: Path, number: signal.Signals, times: int, extra: list[str]
) -> None:
    """143 and 130, as in a shell; no worker, cgroup or state is left, also after five signals."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    event = json.dumps({"hold": str(fifo)})
    process = start(
        *("invoke", subject, "-e", event, "--timeout", "60", *extra),
        env={"MINILAMBDA_SHUTDOWN_GRACE": "0.5"},
    )
    with fifo.open("rb") as held:
        assert b"held" == held.read(4)
        for _ in range(times):
            process.send_signal(number)
            # Equal signals that are pending are merged (signal(7)): wait until each is delivered.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.03)
        done = finish(process)
        rest = held.read()  # returns when the last writer is gone: no worker is left

    assert 128 + number == done.code
    assert rest in (b"", b"held")
    assert "" == done.out


# The state directory


def test_state_keeps_the_ledger_and_bill_reads_it(subject: str, tmp_path: Path) -> None:
    """Each run adds to it; the bill follows the price book, as a table and as JSON."""
    state = tmp_path / "state"
    for _ in range(2):
        assert 0 == run("invoke", subject, "--state", state).code
    assert 1 == run("invoke", subject, "-e", '"fail"', "--state", state).code
    billed = {}
    for book in ("2018", "2020", "2025"):
        table = run("bill", "--state", state, "--book", book)
        (month,) = run("bill", "--state", state, "--book", book, "--json").document

        assert 0 == table.code
        assert f"price book {book}" in table.out
        assert "3 requests" in table.out
        assert "free tier: 3 requests" in table.out
        assert (book, 3) == (month["book"], month["requests"])
        assert ["subject"] == [line["function"] for line in month["lines"]]
        billed[book] = float(month["gb_seconds"])
    assert billed["2020"] < billed["2025"]  # the init phase
    assert billed["2020"] < billed["2018"] == pytest.approx(3 * 0.1 * 128 / 1024)
    assert 3 == run("bill", "--state", state, "--json").document[0]["requests"]


def test_a_mistake_loses_no_kept_function(subject: str, tmp_path: Path) -> None:
    """A run that is refused leaves the function of an earlier run as it was."""
    state = tmp_path / "state"
    assert 0 == run("invoke", subject, "--timeout", "9", "--state", state).code
    assert 2 == run("invoke", subject, "--memory-size", "64", "--state", state).code

    async def kept() -> list[tuple[str, int]]:
        async with miniλ.Supervisor(state) as supervisor:
            return [(f.name, f.timeout) for f in supervisor.list_functions()]

    assert [("subject", 9)] == asyncio.run(kept())
    assert 5 == run("invoke", subject, "-e", "5", "--timeout", "5", "--state", state).document
    assert [("subject", 5)] == asyncio.run(kept())


def test_a_damaged_ledger_is_exit_code_69(tmp_path: Path) -> None:
    """A damaged file is neither a usage error nor a traceback."""
    (tmp_path / "registry.db").write_text("no database" * 1000, encoding="utf-8")
    done = run("bill", "--state", tmp_path)

    assert (69, "") == (done.code, done.out)
    assert "registry.db" in done.err


# doctor, help and version


def unnamed(text: str) -> str:
    """Return a text without the names of supervisors' cgroups, which are of one run."""
    return re.sub(r"minilambda-[0-9a-f]+", "minilambda-", text)


def test_the_doctor_prints_the_same_as_table_and_as_json() -> None:
    """Every check of the JSON is in the table, and every gap has a remedy."""
    table, document = run("doctor"), run("doctor", "--json").document

    check_report(document)
    assert (0, "") == (table.code, table.err)
    level = document[0]["by"]
    assert level.partition(",")[0] in levels.LEVELS
    assert ["level", *level.split()] == table.out.splitlines()[0].split()
    printed = unnamed(table.out)
    for check in document:
        assert unnamed(check["by"]) in printed
        assert check["remedy"] in printed
    checks = asyncio.run(doctor.examine())
    assert [check.resource for check in checks] == [check["resource"] for check in document]
    assert all(check.proved is not False for check in checks)


def test_a_probe_with_a_bug_has_not_tried_its_limit() -> None:
    """Its exception is neither a limit that held nor one that did not."""

    async def scenario() -> list[tuple[bool | None, str]]:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("doctor", doctor.CODE, "app.handler")
            return [
                doctor.judge(await supervisor.invoke("doctor", event))
                for event in ({"probe": "tmp"}, {"probe": "siblings", "pid": 1 << 40})
            ]

    assert [
        (None, "not tried: KeyError: 'megabytes'"),
        (None, "not tried: OverflowError: signed integer is greater than maximum"),
    ] == asyncio.run(scenario())


def test_help_and_version_are_there() -> None:
    """-h works on every command, and --version is the package's."""
    assert (0, f"minilambda, version {miniλ.__version__}\n") == run("--version")[:2]
    for command in ([], ["invoke"], ["doctor"], ["bill"]):
        done = run(*command, "-h")
        assert 0 == done.code
        assert "Usage: " in done.out
    assert "--memory-size" in run("invoke", "-h").out
