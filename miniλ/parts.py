"""Wires everything: the parts of one open supervisor, opened in the order of their dependencies.

Rule: what is opened here is closed by `undo`, in the opposite order; also if a later step
fails, or the opening is cancelled. A step on a thread cannot be cancelled, so it is waited for.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import TYPE_CHECKING, TypeVar

import msgspec

from miniλ import journal, names
from miniλ.background import Background, to_its_end
from miniλ.code_store import CodeStore
from miniλ.errors import InvalidParameterValue, LambdaError
from miniλ.events.delivery import Delivery
from miniλ.events.queue import EventQueue
from miniλ.functions import Functions, over_reserved
from miniλ.invoker import Invoker
from miniλ.journal import Journal
from miniλ.pool.pool import Pool
from miniλ.runtimes import catalog
from miniλ.sandbox import levels, processes
from miniλ.sandbox.users import Users
from miniλ.store import state_dir
from miniλ.store.logbook import Logbook
from miniλ.store.registry import Registry
from miniλ.worker import isolation
from miniλ.worker.affinity import Affinity
from miniλ.worker.equipment import PROCESSES, Equipment
from miniλ.worker.tmp_dirs import TmpDirs
from miniλ.worker.zygote import Zygotes

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from miniλ.model import FunctionDraft
    from miniλ.settings import Settings
    from miniλ.store.state_dir import StateDir

T = TypeVar("T")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one open supervisor; the gateway works with them."""

    settings: Settings
    state: StateDir
    journal: Journal
    registry: Registry
    logbook: Logbook
    # What each worker has: the sandbox, zygotes, /tmp directories, and how hard limits are held.
    equipment: Equipment
    pool: Pool
    invoker: Invoker
    # Invocations that run beside the request that waits for them: its client may leave.
    invocations: Background
    functions: Functions
    delivery: Delivery


async def wire(
    state_path: str | os.PathLike[str] | None, settings: Settings, undo: contextlib.AsyncExitStack
) -> Parts:
    """Take the state directory, sweep what a dead supervisor left, and open every part."""
    state, remains = await _in_a_thread(
        lambda: state_dir.open_state(state_path), lambda opened: opened[0].close()
    )
    undo.push_async_callback(asyncio.to_thread, state.close)
    registry = Registry(state.registry, durable=state.kept)
    undo.push_async_callback(registry.close)
    facts = Journal(registry.note)
    if registry.warning:
        facts.record(journal.Trouble(what=registry.warning))
    for each in remains:
        facts.record(
            journal.StateSwept(instance=each.instance, processes=each.processes, paths=each.paths)
        )
    equipment, logbook, delivery = await _equip(settings, state, facts, undo)

    async def collect_code() -> None:
        await functions.collect_code()

    invocations = Background(
        facts, "A bug of miniλ: an invocation ended without a response", expects=LambdaError
    )
    # After the pool is closed: then no invocation waits for a worker.
    undo.push_async_callback(invocations.finish)
    pool = Pool(equipment, collect_code)
    undo.push_async_callback(pool.close)
    functions = Functions(
        registry,
        pool,
        CodeStore(state),
        names.Place(settings.region, settings.account),
        functools.partial(_prepare, equipment, pool),
        facts,
    )
    undo.push_async_callback(functions.close)
    await functions.open()
    undo.callback(delivery.stop)
    undo.push_async_callback(delivery.drain, settings.shutdown_grace)
    return Parts(
        settings=settings,
        state=state,
        journal=facts,
        registry=registry,
        logbook=logbook,
        equipment=equipment,
        pool=pool,
        invoker=Invoker(pool),
        invocations=invocations,
        functions=functions,
        delivery=delivery,
    )


async def _equip(
    settings: Settings, state: StateDir, facts: Journal, undo: contextlib.AsyncExitStack
) -> tuple[Equipment, Logbook, Delivery]:
    """Choose the sandbox that this host gives; open what workers and events need."""
    choice = await isolation.choose(settings, str(state.root_mount))
    hierarchy = isolation.open_hierarchy(settings, choice, state.instance)
    undo.callback(isolation.close_hierarchy, hierarchy, facts)
    state.write_down(list(hierarchy.directories))
    volumes = await isolation.open_volumes(choice, str(state.tmp), facts, undo)
    if volumes is None:
        choice = choice._replace(volumes=False)
    limits = levels.limits(choice, hierarchy.limits)
    isolation.check_required(settings, limits)
    for mechanism, why in choice.missing.items():
        facts.record(journal.MechanismMissing(mechanism=mechanism, why=why))
    zygotes = Zygotes(facts, choice.isolation, state.instance)
    undo.push_async_callback(zygotes.close)
    users = Users() if choice.users else None
    logbook = Logbook(state.logs if state.kept and settings.keep_logs else None)
    await undo.enter_async_context(logbook.flushing(facts))
    queue = await _in_a_thread(
        lambda: EventQueue(state.events, durable=state.kept), EventQueue.abandon
    )
    delivery = Delivery(queue, facts, settings.event_retry)
    undo.push_async_callback(delivery.close)
    equipment = Equipment(
        settings=settings,
        journal=facts,
        zygotes=zygotes,
        hierarchy=hierarchy,
        choice=choice,
        tmp_dirs=TmpDirs(str(state.tmp), volumes, users, zygotes.release),
        instance=state.instance,
        limits=limits,
        process_limit=_process_limit(choice, limits),
        affinity=Affinity(),
        keep_log=logbook.note if settings.keep_logs else None,
    )
    return equipment, logbook, delivery


async def _prepare(equipment: Equipment, pool: Pool, function: FunctionDraft) -> None:
    """Make what a worker of a function needs; refuse what this host does not have."""
    if function.runtime not in catalog.KNOWN:
        await asyncio.to_thread(catalog.check, function.runtime)
    if function.network == "none" and not equipment.choice.isolation.namespaces:
        msg = "network='none' needs namespaces, which this host or these settings do not give"
        raise InvalidParameterValue(msg)
    reservable = pool.reservable(function.name)
    if (function.reserved_concurrency or 0) > reservable:
        raise over_reserved(function.reserved_concurrency or 0, reservable)
    await equipment.zygotes.get(function.runtime)
    # The first /tmp of a size takes longest: not while an invocation waits for it.
    await equipment.tmp_dirs.make_ahead(function.ephemeral_storage)


def _process_limit(choice: levels.Choice, limits: dict[str, str]) -> int | None:
    """Return the RLIMIT_NPROC of workers: the kernel counts all tasks of the user."""
    if choice.users or choice.isolation.namespaces == "user":
        return PROCESSES  # counted for each worker alone
    if limits["processes"].startswith("hard") or os.geteuid() == 0:
        return None
    return processes.tasks_of_user() + PROCESSES


async def _in_a_thread(open_: Callable[[], T], close: Callable[[T], None]) -> T:
    """Open something on a thread; if the caller is cancelled meanwhile, close it again."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_))
    try:
        return await to_its_end(opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:
            close(opening.result())
        raise
