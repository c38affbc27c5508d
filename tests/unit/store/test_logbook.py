"""Tests of the logbook: responses to events, the bounds of memory, and reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from miniλ.errors import ResourceNotFound
from miniλ.store import logbook
from miniλ.store.logbook import Logbook, LogStream

from .logbooks import GROUP, NOON, NOON_MS, STREAM, W2, messages, note, response, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "disk"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Logbook:
    """Return a logbook of either kind: a reader cannot tell them apart."""
    return Logbook(None if request.param == "memory" else tmp_path / "logs")


# Responses to events


def test_each_line_is_an_event(book: Logbook) -> None:
    """INIT lines, START, what was printed, END and REPORT, each with its newline."""

    async def scenario() -> None:
        note(book, response(b"one\ntwo", b"loading\n", init_seconds=0.5), NOON)
        id_ = "8f5ab0a2-0000-4000-8000-000000000001"

        assert [
            (NOON_MS - 2500, "loading\n"),
            (NOON_MS - 2000, f"START RequestId: {id_} Version: $LATEST\n"),
            (NOON_MS - 2000, "one\n"),
            (NOON_MS - 2000, "two\n"),
            (NOON_MS, f"END RequestId: {id_}\n"),
            (
                NOON_MS,
                (
                    f"REPORT RequestId: {id_}\tDuration: 2000.00 ms\tBilled Duration: 2500 ms\t"
                    "Memory Size: 128 MB\tMax Memory Used: 33 MB\tInit Duration: 500.00 ms\t\n"
                ),
            ),
        ] == [(event.timestamp, event.message) for event in await book.events(GROUP)]

    run(scenario)


@pytest.mark.parametrize("init_log", [b"", b"a", b"a\n", b"a\nb", b"\n", b"a\xff\r\n"])
@pytest.mark.parametrize("printed", [b"", b"\n", b"x", b"x\ny\n", b"START RequestId: forged\n"])
def test_events_are_the_log_of_the_response(init_log: bytes, printed: bytes) -> None:
    """Put together they are `Response.log`; START has its time, also after a forged one."""

    async def scenario() -> None:
        book = Logbook()
        example = response(printed, init_log, init_seconds=1.0)
        note(book, example, NOON)
        events = await book.events(GROUP)

        assert example.log == "".join(event.message for event in events)
        [start] = [n for n, event in enumerate(events) if "START RequestId: 8f" in event.message]
        assert {NOON_MS - 3000} >= {event.timestamp for event in events[:start]}
        assert {NOON_MS - 2000} == {event.timestamp for event in events[start:-2]}
        assert {NOON_MS} == {event.timestamp for event in events[-2:]}
        assert {NOON_MS} == {event.ingestion for event in events}

    run(scenario)


def test_a_folded_traceback_is_one_event(book: Logbook) -> None:
    r"""A "\r" ends nothing, and what is not UTF-8 is replaced."""

    async def scenario() -> None:
        note(book, response("[ERROR] E\rTraceback:\r\xa0\xa0line\n".encode() + b"\xff\x00\n"), NOON)

        assert ["[ERROR] E\rTraceback:\r\xa0\xa0line\n", "\ufffd\0\n"] == messages(
            await book.events(GROUP)
        )

    run(scenario)


def test_a_response_is_in_the_stream_that_it_comes_with(book: Logbook) -> None:
    """The logbook makes no name of its own: not by the day, the version or the worker's id."""

    async def scenario() -> None:
        midnight = NOON + 12 * 3600
        for stream, at in (("a", NOON), ("b", NOON), ("a", midnight + 2.5), (STREAM, midnight)):
            book.note(response(), stream, at)

        assert [STREAM, "a", "b"] == [stream.name for stream in await book.streams(GROUP)]

    run(scenario)


def test_a_stream_never_turns_around(book: Logbook) -> None:
    """The clock was set back an hour: the next invocation is not before the last one."""

    async def scenario() -> None:
        note(book, response(b"one\n"), NOON)
        note(book, response(b"two\n"), NOON - 3600)
        note(book, response(b"three\n"), NOON + 1)
        events = await book.events(GROUP)

        assert ["one\n", "two\n", "three\n"] == messages(events)
        assert [
            *[NOON_MS - 2000] * 2,
            *[NOON_MS] * 8,
            *[NOON_MS + 1000] * 2,
        ] == [event.timestamp for event in events]

    run(scenario)


def test_ids_are_stable_and_unique(book: Logbook) -> None:
    """Two reads return the same ids, also of two invocations of one millisecond."""

    async def scenario() -> None:
        note(book, response(b"same\n"), NOON)
        note(book, response(b"same\n", worker_id=W2), NOON)
        first, second = await book.events(GROUP), await book.events(GROUP)

        assert first == second
        assert len(first) == len({event.position for event in first}) == 8

    run(scenario)


def test_a_note_keeps_no_body() -> None:
    """An answer of 6 MB is not held by its log."""

    async def scenario() -> None:
        book = Logbook()
        example = response()
        note(book, msgspec.structs.replace(example, body=b"x" * 100_000), NOON)

        assert len(msgspec.json.encode(book._entries[0])) < 10_000

    run(scenario)


# Bounds


def test_beyond_the_bound_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three invocations are kept, and one was dropped."""
    monkeypatch.setattr(logbook, "MAX_INVOCATIONS", 3)

    async def scenario() -> None:
        book = Logbook()
        for number in range(4):
            note(book, response(b"%d\n" % number), NOON + number)

        assert ["1\n", "2\n", "3\n"] == messages(await book.events(GROUP))
        assert 1 == book.dropped

    run(scenario)


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the init phase printed counts; what alone is too large is not kept either."""
    monkeypatch.setattr(logbook, "MAX_BYTES", 100)

    async def scenario() -> None:
        book = Logbook()
        note(book, response(b"a" * 50, b"b" * 40), NOON)
        note(book, response(b"c" * 10), NOON)
        assert (0, 100) == (book.dropped, book._bytes)
        note(book, response(b"d"), NOON)
        assert (1, 11) == (book.dropped, book._bytes)
        note(book, response(b"e" * 101), NOON)
        assert (4, 0) == (book.dropped, book._bytes)

    run(scenario)


def test_streams_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a logbook does not grow with the workers that ever lived."""
    monkeypatch.setattr(logbook, "MAX_STREAMS", 2)
    book = Logbook()
    for number in range(5):
        note(book, response(worker_id=f"{number:032x}"), NOON)

    assert [f"2026/01/31/[$LATEST]{number:032x}" for number in (3, 4)] == list(book._latest)


def test_a_logbook_says_what_is_in_it(tmp_path: Path) -> None:
    """The repr counts."""
    book = Logbook(tmp_path)
    note(book, response(b"12345"), NOON)

    assert f"<Logbook in {tmp_path}, 1 invocations of 5 bytes in memory, 0 dropped>" == repr(book)
    assert "in memory," in repr(Logbook())


# Reading


def test_groups_and_streams_are_listed(book: Logbook) -> None:
    """By name, with the times of their first and last events."""

    async def scenario() -> None:
        note(book, response(), NOON)
        note(book, response(worker_id=W2), NOON + 10)
        note(book, response(), NOON + 5)
        note(book, response(function="adder"), NOON + 20)
        groups = await book.groups()

        assert [("/aws/lambda/adder", NOON_MS + 18_000), (GROUP, NOON_MS - 2000)] == [
            (group.name, group.created) for group in groups
        ]
        assert all(group.stored_bytes > 0 for group in groups)
        assert [
            LogStream(STREAM, NOON_MS - 2000, NOON_MS + 5000, NOON_MS + 5000),
            LogStream(
                f"2026/01/31/[$LATEST]{W2}", NOON_MS + 8000, NOON_MS + 10_000, NOON_MS + 10_000
            ),
        ] == await book.streams(GROUP)

    run(scenario)


def test_events_are_chosen(book: Logbook) -> None:
    """By stream, by its prefix, by time and by message; the end is not included."""

    async def scenario() -> None:
        note(book, response(b"one\n"), NOON)
        note(book, response(b"two\n", worker_id=W2), NOON + 1)
        other = f"2026/01/31/[$LATEST]{W2}"

        async def chosen(**choice: Any) -> list[str]:
            return messages(await book.events(GROUP, **choice))

        assert ["one\n", "two\n"] == await chosen()
        assert ["two\n"] == await chosen(streams=[other])
        assert ["one\n"] == await chosen(prefix="2026/01/31/[$LATEST]1")
        assert ["two\n"] == await chosen(start=NOON_MS - 1000)
        assert ["one\n"] == await chosen(end=NOON_MS - 1000)
        assert ["one\n"] == await chosen(
            matches=lambda message: "n" in message and "R" not in message
        )
        assert [] == await chosen(streams=[STREAM], prefix=other)

    run(scenario)


def test_workers_are_interleaved_by_time(book: Logbook) -> None:
    """A long invocation comes last and began first."""

    async def scenario() -> None:
        note(book, response(b"short\n", seconds=1.0, worker_id=W2), NOON)
        note(book, response(b"long\n", seconds=10.0), NOON + 1)
        events = await book.events(GROUP)

        assert ["long\n", "short\n"] == messages(events)
        assert events == sorted(events, key=lambda event: event.position)

    run(scenario)


@pytest.mark.parametrize(
    "group",
    ["", "hello", "/aws/lambda/", "/aws/lambda/other", "/aws/lambda/../hello", GROUP + "\n"],
)
def test_a_group_that_is_not_there(book: Logbook, group: str) -> None:
    """A function that never ran has none, and a path is no function."""

    async def scenario() -> None:
        note(book, response(), NOON)
        for read in (book.events, book.streams):
            with pytest.raises(ResourceNotFound, match="log group does not exist"):
                await read(group)

    run(scenario)


def test_a_stream_that_is_not_there(book: Logbook) -> None:
    """One of two is missing: that is said, and not half an answer."""

    async def scenario() -> None:
        note(book, response(), NOON)
        with pytest.raises(ResourceNotFound, match="log stream does not exist"):
            await book.events(GROUP, streams=[STREAM, "other"])

    run(scenario)


def test_an_empty_logbook_has_no_groups(book: Logbook) -> None:
    """Also where the directory is not made yet."""

    async def scenario() -> None:
        assert [] == await book.groups()
        await book.flush()
        assert [] == await book.groups()

    run(scenario)
