"""Tests of the registry: what was put survives a restart."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from miniλ.errors import ServiceError
from miniλ.model import LATEST
from miniλ.store.registry import Change, Registry
from miniλ.store.resources import (
    ALIAS,
    FUNCTION,
    KINDS,
    LAYER,
    NUMBER,
    TAGS,
    Alias,
    Kind,
    LayerVersion,
)
from tests.unit.store.registries import delete, function, functions, open_registry, put

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a registry may be made."""
    return tmp_path / "registry.db"


def test_a_new_registry_is_empty(path: Path) -> None:
    """The tables are made at opening."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            assert functions(kept) == {}
            assert kept.warning == ""
            assert await kept.usage("2025") == []

    asyncio.run(scenario())
    assert path.is_file()


def test_a_function_is_there_after_a_restart(path: Path) -> None:
    """With every field."""
    ada = function("ada", environment={"AB": "λ"}, reserved_concurrency=0, keep_alive=0.5)

    async def scenario() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("bob"))
            await put(kept, ada)
        async with open_registry(path) as again:
            assert list(functions(again)) == ["ada", "bob"]
            assert ada == functions(again)["ada"]

    asyncio.run(scenario())


def test_a_function_is_on_disk_before_put_returns(path: Path) -> None:
    """Another connection sees the row, while the registry is open."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("ada"))

            with closing(sqlite3.connect(path)) as other:
                assert other.execute("SELECT name FROM resources").fetchall() == [("ada",)]

    asyncio.run(scenario())


def test_the_last_put_of_a_name_counts(path: Path) -> None:
    """An update replaces the row."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("ada", timeout=1))
            await put(kept, function("ada", timeout=2))
            assert functions(kept)["ada"].timeout == 2
        async with open_registry(path) as again:
            assert functions(again)["ada"].timeout == 2
            assert len(functions(again)) == 1

    asyncio.run(scenario())


def test_a_deleted_function_stays_deleted(path: Path) -> None:
    """Deleting a function that does not exist is fine."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("ada"))
            await delete(kept, "ada")
            await delete(kept, "never")
            assert functions(kept) == {}
        async with open_registry(path) as again:
            assert functions(again) == {}

    asyncio.run(scenario())


def test_a_put_that_fails_is_not_remembered(path: Path) -> None:
    """Memory says what the disk says."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            kept._database.execute("DROP TABLE resources")

            with pytest.raises(ServiceError, match="The registry cannot be written"):
                await put(kept, function("ada"))
            assert functions(kept) == {}
            assert not kept._database.in_transaction

    asyncio.run(scenario())


def test_a_full_disk_is_an_error_until_there_is_room(path: Path) -> None:
    """Memory stays as it was; later writes go on. Here the file may have ten pages."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("ada"))
            await put(kept, function("bob"))
            kept._database.execute("PRAGMA max_page_count=10")
            large = function("ada", description="x" * 100_000)
            full = "^The registry cannot be written: database or disk is full$"
            with pytest.raises(ServiceError, match=full):
                await put(kept, large)
            assert "" == functions(kept)["ada"].description
            await delete(kept, "bob")
            kept._database.execute("PRAGMA max_page_count=1000")
            await put(kept, large)
        async with open_registry(path) as again:
            assert {"ada": large} == functions(again)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "content",
    [b"not a database, but text that is long enough " * 40, b"SQLite format 3\0" * 99],
)
def test_a_file_that_is_no_registry_is_refused(path: Path, content: bytes) -> None:
    """The message has its path, and the file is closed."""
    path.write_bytes(content)

    async def scenario() -> None:
        with pytest.raises(ServiceError, match=r"The registry .*registry\.db cannot be read"):
            Registry(path, durable=False)

    asyncio.run(scenario())


def test_a_registry_where_none_can_be_is_refused(tmp_path: Path) -> None:
    """A directory that is missing, or a directory where the file should be."""

    async def scenario() -> None:
        for place in (tmp_path / "missing" / "registry.db", tmp_path):
            with pytest.raises(ServiceError, match="cannot be read"):
                Registry(place, durable=False)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        "no json",
        "[" * 100_000,
        msgspec.json.encode(function("f")).decode().replace(":128,", ":64,"),
    ],
    ids=["empty", "text", "deep", "64 MB"],
)
def test_a_row_that_is_no_function_is_refused(path: Path, document: str) -> None:
    """Edited by hand, or of another version: an error of ours, and nothing stays open."""
    before = set(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        async with open_registry(path):
            pass
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "INSERT INTO resources VALUES ('function', 'f', '$LATEST', ?)", (document,)
            )

        with pytest.raises(ServiceError, match="cannot be read"):
            Registry(path, durable=False)

    asyncio.run(scenario())
    assert before == set(os.listdir("/proc/self/fd"))


def test_changes_of_one_write_are_all_there_or_none(path: Path) -> None:
    """A change that cannot be written takes the others of its write along."""

    async def main() -> None:
        async with open_registry(path) as kept:
            with pytest.raises(TypeError):
                await kept.write(
                    Change(FUNCTION, "ada", LATEST, function("ada")),
                    Change(TAGS, "ada", "", {"no": object()}),
                )
            assert {} == functions(kept)
        async with open_registry(path) as again:
            assert {} == functions(again)

    asyncio.run(main())


def test_a_resource_comes_back_as_it_was(path: Path) -> None:
    """Each kind has its type, also after a restart; a part that was deleted is not there."""
    alias = Alias(function="ada", name="prod", version="3", revision="r", weights={"2": 0.25})

    async def main() -> None:
        async with open_registry(path) as kept:
            await kept.write(
                Change(ALIAS, "ada", "prod", alias),
                Change(ALIAS, "ada", "test", alias),
                Change(NUMBER, "ada", "", 3),
            )
            await kept.write(Change(ALIAS, "ada", "test", None))
        async with open_registry(path) as again:
            assert {"prod": alias} == again.parts(ALIAS, "ada")
            assert 3 == again.get(NUMBER, "ada")
            assert None is again.get(ALIAS, "ada", "test")
            assert {} == again.parts(ALIAS, "bob")

    asyncio.run(main())


def test_a_database_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    """Functions that an older miniλ wrote are still there; the migration runs once."""
    ada = function("ada")
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE functions (name TEXT PRIMARY KEY, document TEXT NOT NULL)")
        old.execute(
            "INSERT INTO functions VALUES (?, ?)", ("ada", msgspec.json.encode(ada).decode())
        )
        old.commit()

    async def main() -> None:
        for _ in range(2):
            async with open_registry(path) as kept:
                assert {"ada": ada} == functions(kept)

    asyncio.run(main())


def test_a_database_of_a_later_version_is_left_alone(path: Path) -> None:
    """What a later miniλ wrote is refused with the reason, and not changed."""
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=99")

    async def main() -> None:
        with pytest.raises(ServiceError, match=r"later version \(schema 99, known up to \d\)"):
            Registry(path, durable=False)

    asyncio.run(main())

    with closing(sqlite3.connect(path)) as newer:
        assert [] == newer.execute("SELECT * FROM sqlite_master").fetchall()


# What a later version wrote


def insert(path: Path, kind: str, name: str, part: str, document: str) -> None:
    """Write a row as another version may write it."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO resources VALUES (?, ?, ?, ?)", (kind, name, part, document))


def rows(path: Path, kind: str) -> dict[tuple[str, str], Any]:
    """Return the documents of a kind, by name and part."""
    with closing(sqlite3.connect(path)) as other:
        cursor = other.execute("SELECT name, part, document FROM resources WHERE kind = ?", (kind,))
        return {(name, part): msgspec.json.decode(document) for name, part, document in cursor}


@pytest.mark.parametrize("document", ['{"AB":[1,null]}', "3", "no json at all"])
def test_rows_of_an_unknown_kind_are_left_alone(path: Path, document: str) -> None:
    """A downgrade loses none of them: not when others are written, nor when the function goes."""

    async def main() -> None:
        async with open_registry(path) as kept:
            await put(kept, function("ada"))
        insert(path, "trigger", "ada", "1", document)
        async with open_registry(path) as kept:
            assert f"registry {path} has rows of kinds" in kept.warning
            assert "(trigger): they stay as they are" in kept.warning
            assert ["ada"] == list(functions(kept))
            await put(kept, function("ada", timeout=9))
            await delete(kept, "ada")
        async with open_registry(path) as again:
            await put(again, function("bob"))
            await delete(again, "bob")

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as other:
        left = other.execute("SELECT * FROM resources").fetchall()
    assert [("trigger", "ada", "1", document)] == left


STRUCTS: dict[Kind[Any], Any] = {
    FUNCTION: function("ada"),
    ALIAS: Alias(function="ada", name="prod", version="3", revision="r"),
    LAYER: LayerVersion(
        name="ada", version=1, code_sha256="", code_size=1, code_path="/x", created=""
    ),
}


def test_every_kind_of_a_struct_is_in_the_table() -> None:
    """The next test covers every kind of a struct."""
    assert set(STRUCTS) == {
        kind for kind in KINDS.values() if issubclass(kind.type, msgspec.Struct)
    }


@pytest.mark.parametrize("kind", STRUCTS, ids=repr)
def test_unknown_fields_of_a_known_kind_are_written_back(path: Path, kind: Kind[Any]) -> None:
    """A change by this version keeps the fields that a later one added; a deletion does not."""
    value = STRUCTS[kind]
    added = {"later": {"λ": [1.5, None]}, "other": 2}
    changed = {"description": "changed"}

    async def main() -> None:
        async with open_registry(path):
            pass
        plain = msgspec.json.decode(msgspec.json.encode(value))
        document = plain | added
        insert(path, kind.name, "ada", "1", msgspec.json.encode(document).decode())
        for _ in range(2):
            async with open_registry(path) as kept:
                for _ in range(2):
                    new = msgspec.structs.replace(kept.get(kind, "ada", "1"), **changed)
                    await kept.write(Change(kind, "ada", "1", new))
                    assert {("ada", "1"): document | changed} == rows(path, kind.name)
        async with open_registry(path) as kept:
            await kept.write(Change(kind, "ada", "1", None))
            await kept.write(Change(kind, "ada", "1", value))
            assert {("ada", "1"): plain} == rows(path, kind.name)

    asyncio.run(main())


def test_a_row_that_cannot_be_read_is_named(path: Path) -> None:
    """The file, the kind, the name, what is wrong, and what to do."""

    async def main() -> None:
        async with open_registry(path):
            pass
        insert(path, "alias", "ada", "prod", '{"function":"ada","name":7}')
        with pytest.raises(ServiceError) as caught:
            Registry(path, durable=False)
        for part in (str(path), "the alias 'ada' 'prod'", "Expected `str`", "delete this row"):
            assert part in str(caught.value)

    asyncio.run(main())


# A caller that leaves


@pytest.mark.parametrize("turns", [0, 1])
def test_memory_is_as_the_disk_is_also_where_the_caller_has_gone(path: Path, turns: int) -> None:
    """A write that is cancelled, before or after it has begun, is carried out in both or none."""

    async def main() -> None:
        async with open_registry(path) as kept:
            task = asyncio.create_task(put(kept, function("ada")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await put(kept, function("bob"))
            assert list(functions(kept)) == (["ada", "bob"] if turns else ["bob"])
        async with open_registry(path) as again:
            assert list(functions(again)) == (["ada", "bob"] if turns else ["bob"])

    asyncio.run(main())
