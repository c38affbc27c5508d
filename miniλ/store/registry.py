"""This module is the registry: resources and the ledger, SQLite behind plain functions.

Rule 1: one connection writes (WAL, synchronous=FULL), on one thread, so that an fsync never
holds the event loop; a function's row is on disk before `create_function` returns.

Rule 2: reads are from memory. The database is read once, when it is opened, and what was read
is never changed in place: who changes a resource writes another one.

Rule 3: what belongs together is written together: changes of one `write` are all there or none.

The ledger adds up usage by month, function and memory size, for all price books, and writes
it at most a second later: a crash costs at most that second.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from miniλ import billing, journal
from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.model import Invoked
from miniλ.store import database
from miniλ.store.resources import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# How long usage may be in memory only.
LEDGER_SECONDS = 1.0
# Invocations are added up so many at a time: not while each one's caller waits.
NOTED = 16

T = TypeVar("T")
_Key: TypeAlias = tuple[str, str, int]
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
        """Open or make the database; `durable=False` is for a state that nobody keeps."""
        self.path = path
        self._sql = database.statements("miniλ.store", "registry.sql")
        # By kind, name and part.
        self._resources: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        # Opened here and used there: the thread is the only one that touches it afterwards.
        try:
            self._database = database.connect(path, self._sql, durable=durable)
            try:
                self._load()
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.Error, msgspec.MsgspecError, InvalidParameterValue) as exc:
            msg = f"The registry {path} cannot be read: {exc}"
            raise ServiceError(msg) from exc
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="minilambda-registry")
        self._loop = asyncio.get_running_loop()
        # Invocations that are not added up yet; what the last second's add up to, by function
        # and memory size; and, by month too, what is not written yet.
        self._noted: list[Invoked] = []
        self._fresh: dict[tuple[str, int], billing.Tally] = {}
        self._owed: dict[_Key, list[int]] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False

    def _load(self) -> None:
        for kind, name, part, document in self._database.execute(self._sql["resources"]):
            value = msgspec.json.decode(document, type=KINDS[kind].type)
            self._resources[kind].setdefault(name, {})[part] = value

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

    async def write(self, *changes: Change) -> None:
        """Carry out changes, all or none; they are on disk when this returns."""
        puts, deletes = [], []
        for kind, name, part, value in changes:
            if value is None:
                deletes.append((kind.name, name, part))
            else:
                document = msgspec.json.encode(value).decode()
                puts.append((kind.name, name, part, document))

        def write() -> None:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(self._sql["delete_resource"], deletes)
                self._database.executemany(self._sql["put_resource"], puts)

        await self._run(write)
        for kind, name, part, value in changes:
            names = self._resources[kind.name]
            if value is not None:
                names.setdefault(name, {})[part] = value
            elif name in names:
                names[name].pop(part, None)
                if not names[name]:
                    del names[name]

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._loop.run_in_executor(self._thread, work)
        except sqlite3.Error as exc:
            msg = f"The registry cannot be written: {exc}"
            raise ServiceError(msg) from exc

    # The ledger

    def note(self, fact: journal.AnyFact) -> None:
        """Count an invocation. Called for every fact; costs no I/O."""
        if fact.__class__ is Invoked:
            self._noted.append(fact)
            if len(self._noted) >= NOTED or self._flush_timer is None:
                self._add_up()
                if self._flush_timer is None:
                    self._flush_timer = self._loop.call_later(LEDGER_SECONDS, self._start_flush)

    def _add_up(self) -> None:
        noted, self._noted = self._noted, []
        for invoked in noted:
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
        except ServiceError:
            if self._closing:
                return  # `close` tries once more, and raises
            # Nothing is lost while we live: what is owed is written with the next second's.
            self._flush_timer = self._loop.call_later(LEDGER_SECONDS, self._start_flush)

    async def flush(self) -> None:
        """Write the usage that is in memory only; else raises, and keeps it."""
        month = time.strftime("%Y-%m", time.gmtime())
        self._add_up()
        fresh, self._fresh = self._fresh, {}
        for (function, memory_size), tally in fresh.items():
            key = (month, function, memory_size)
            owed = self._owed.setdefault(key, [0, 0, 0, 0])
            self._owed[key] = [a + b for a, b in zip(owed, tally.row(), strict=True)]
        if self._owed:
            await self._run(self._write_owed)

    def _write_owed(self) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                self._sql["add_usage"], [(*key, *owed) for key, owed in self._owed.items()]
            )
        self._owed.clear()

    async def usage(self, book: str) -> list[billing.Usage]:
        """Return what was used so far, billed by this book."""
        await self.flush()
        rows = await self._run(lambda: self._database.execute(self._sql["usage"]).fetchall())
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
            await self._loop.run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()


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
