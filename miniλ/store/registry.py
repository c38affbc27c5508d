"""The registry: resources and the ledger of one state directory, in SQLite.

Rule 1: a `Writer` writes (WAL, synchronous=FULL if the state directory is kept), so an fsync
never holds the event loop; a function's row is on disk before `write` returns.

Rule 2: reads are from memory. The database is read once, when it is opened, and a value that was
read is never changed in place: a change is another value.

Rule 3: changes of one `write` are committed together, all or none.

Rule 4: a downgrade loses nothing. Rows of a kind that a later version added stay as they are, and
fields that it added to a known kind are written back with each change of their row.

The ledger adds up usage by month, function and memory size, for all price books, and writes it
once a second: a crash costs at most the usage of that second.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from miniλ import billing, journal
from miniλ.background import to_its_end
from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.model import Invoked
from miniλ.store import database
from miniλ.store.resources import KINDS, Kind
from miniλ.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# How long usage may be in memory only.
LEDGER_SECONDS = 1.0
# Invocations are added up in batches of this size: a caller does not wait for the arithmetic.
BATCH = 16

T = TypeVar("T")
_UsageKey: TypeAlias = tuple[str, str, int]
_RowKey: TypeAlias = tuple[str, str, str]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Change(NamedTuple):
    """One resource as it is to be; a value of None deletes it."""

    kind: Kind[Any]
    name: str
    part: str
    value: Any


class Registry:
    """The resources of one state directory, and what its functions used."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open or make the database; `durable=False` is for a temporary state directory.

        Raises `ServiceError` with the row that cannot be read.
        """
        self.path = path
        # Kinds of rows that a later version wrote; they are left alone.
        self.unknown_kinds: set[str] = set()
        self._sql = database.statements("miniλ.store", "registry.sql")
        # By kind, name and part.
        self._resources: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        # Fields that a later version wrote, by row.
        self._unknown_fields: dict[_RowKey, dict[str, msgspec.Raw]] = {}
        try:
            self._database = database.connect(path, self._sql, durable=durable)
            try:
                self._load()
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.Error, InvalidParameterValue) as exc:
            msg = f"The registry {path} cannot be read: {exc}"
            raise ServiceError(msg) from exc
        self._writer = Writer(self._database, path, "The registry")
        self._loop = asyncio.get_running_loop()
        # Invocations that are not added up yet; the sums of the last second, by function and memory
        # size; and the sums that are not written yet, by month too.
        self._invoked: list[Invoked] = []
        self._fresh: dict[tuple[str, int], billing.Tally] = {}
        self._owed: dict[_UsageKey, list[int]] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False

    def _load(self) -> None:
        for kind, name, part, document in self._database.execute(self._sql["resources"]):
            known_kind = KINDS.get(kind)
            if known_kind is None:
                self.unknown_kinds.add(kind)
                continue
            try:
                value = msgspec.json.decode(document, type=known_kind.type)
            except (msgspec.MsgspecError, InvalidParameterValue, RecursionError) as exc:
                msg = (
                    f"the {kind} {name!r} {part!r} is not as this version writes it ({exc}); start "
                    "the version that wrote it, or delete this row of the table `resources`"
                )
                raise InvalidParameterValue(msg) from exc
            self._resources[kind].setdefault(name, {})[part] = value
            if unknown := _unknown_fields(document, known_kind):
                self._unknown_fields[kind, name, part] = unknown

    @property
    def warning(self) -> str:
        """What the operator should know after a downgrade; "" if every row is understood."""
        if not self.unknown_kinds:
            return ""
        kinds = ", ".join(sorted(self.unknown_kinds))
        return (
            f"the registry {self.path} has rows of kinds that this version does not know ({kinds}):"
            " they stay as they are and have no effect; to use them, start the version that wrote"
            " them"
        )

    # Resources

    def get(self, kind: Kind[T], name: str, part: str = "") -> T | None:
        """Return one resource, or None."""
        parts = self._resources[kind.name].get(name)
        return None if parts is None else parts.get(part)

    def parts(self, kind: Kind[T], name: str) -> Mapping[str, T]:
        """Return the resources of this name, by part."""
        return self._resources[kind.name].get(name, _NOTHING)

    def names(self, kind: Kind[Any]) -> list[str]:
        """Return the names that have resources of this kind, sorted."""
        return sorted(self._resources[kind.name])

    async def write(self, *changes: Change, then: Callable[[], None] | None = None) -> None:
        """Carry out changes, all or none, and call `then`; they are on disk when this returns.

        `then` is what else has to follow the registry (the pool, names that are live). A caller
        that is cancelled meanwhile takes nothing back: it waits for the disk and for `then`, holds
        its locks until both are done, and is cancelled after that. Raises `ServiceError`.
        """
        puts, deletes = [], []
        for kind, name, part, value in changes:
            if value is None:
                deletes.append((kind.name, name, part))
            else:
                puts.append((kind.name, name, part, self._document(kind, name, part, value)))

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(self._sql["delete_resource"], deletes)
            connection.executemany(self._sql["put_resource"], puts)

        async def carry_out() -> None:
            await self._writer.run(write)
            self._apply(changes)
            if then is not None:
                then()

        await to_its_end(asyncio.ensure_future(carry_out()))

    def _apply(self, changes: tuple[Change, ...]) -> None:
        for kind, name, part, value in changes:
            names = self._resources[kind.name]
            if value is not None:
                names.setdefault(name, {})[part] = value
                continue
            self._unknown_fields.pop((kind.name, name, part), None)
            if name in names:
                names[name].pop(part, None)
                if not names[name]:
                    del names[name]

    def _document(self, kind: Kind[Any], name: str, part: str, value: object) -> str:
        """Return a row's JSON, with the fields that only a later version knows."""
        document = msgspec.json.encode(value)
        unknown = self._unknown_fields.get((kind.name, name, part))
        if unknown:
            fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
            document = msgspec.json.encode(fields | unknown)
        return document.decode()

    # The ledger

    def note(self, fact: journal.AnyFact) -> None:
        """Count an invocation. Called for every fact; costs no I/O."""
        if fact.__class__ is Invoked:
            self._invoked.append(fact)
            if len(self._invoked) >= BATCH or self._flush_timer is None:
                self._add_up()
                if self._flush_timer is None:
                    self._flush_timer = self._loop.call_later(LEDGER_SECONDS, self._start_flush)

    def _add_up(self) -> None:
        invocations, self._invoked = self._invoked, []
        for invoked in invocations:
            key = (invoked.function, invoked.memory_size_mb)
            tally = self._fresh.get(key)
            if tally is None:
                tally = self._fresh[key] = billing.Tally()
            tally.add(invoked.seconds, invoked.init_seconds)

    def _start_flush(self) -> None:
        self._flush_timer = None
        self._flushing = self._loop.create_task(self._flush_or_keep())

    async def _flush_or_keep(self) -> None:
        try:
            await self.flush()
        except Exception:  # noqa: BLE001 - the registry has no journal: `close` raises what is left
            if self._closing:
                return  # `close` tries once more, and raises
            # Usage that could not be written is written with the next second's.
            self._flush_timer = self._loop.call_later(LEDGER_SECONDS, self._start_flush)

    async def flush(self) -> None:
        """Write the usage that is only in memory; raises `ServiceError`, and then keeps it."""
        month = time.strftime("%Y-%m", time.gmtime())
        self._add_up()
        fresh, self._fresh = self._fresh, {}
        for (function, memory_size), tally in fresh.items():
            self._owe((month, function, memory_size), tally.row())
        owed, self._owed = self._owed, {}
        if not owed:
            return
        rows = [(*key, *sums) for key, sums in owed.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(self._sql["add_usage"], rows)

        def on_written(step: asyncio.Future[None]) -> None:
            if step.exception() is not None:
                for key, sums in owed.items():
                    self._owe(key, sums)

        step = self._writer.run(write)
        step.add_done_callback(on_written)
        await asyncio.shield(step)

    def _owe(self, key: _UsageKey, sums: list[int]) -> None:
        owed = self._owed.setdefault(key, [0, 0, 0, 0])
        self._owed[key] = [a + b for a, b in zip(owed, sums, strict=True)]

    async def usage(self, book: str) -> list[billing.Usage]:
        """Return all usage until now, billed by this price book."""
        await self.flush()
        rows = await self._writer.run(
            lambda connection: connection.execute(self._sql["usage"]).fetchall()
        )
        return _usages(rows, book)

    async def close(self) -> None:
        """Write the rest of the ledger and close the database; raises if it cannot be written."""
        self._closing = True
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        try:
            if self._flushing is not None:
                await self._flushing
            await self.flush()
        finally:
            await self._writer.close()


def read_usage(path: Path, book: str) -> list[billing.Usage]:
    """Return the usage in a registry that another process may have open."""
    try:
        with database.reading(path) as ledger:
            usage = database.statements("miniλ.store", "registry.sql")["usage"]
            rows = ledger.execute(usage).fetchall()
    except sqlite3.Error as exc:
        msg = f"The ledger {path} cannot be read: {exc}"
        raise ServiceError(msg) from exc
    return _usages(rows, book)


def _usages(rows: list[tuple[str, str, int, int, int, int, int]], book: str) -> list[billing.Usage]:
    column = 4 + list(billing.BOOKS).index(book)
    return [billing.Usage(*row[:4], billed_ms=int(row[column])) for row in rows]


def _unknown_fields(document: str, kind: Kind[Any]) -> dict[str, msgspec.Raw]:
    """Return the fields of a row that its kind does not have; none if its type is no struct."""
    if not issubclass(kind.type, msgspec.Struct):
        return {}
    fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    own = kind.type.__struct_encode_fields__
    return {name: value.copy() for name, value in fields.items() if name not in own}
