"""The choice of a sandbox: made once, when a supervisor opens.

The operator's settings are an upper bound. A program of its own (`sandbox.probe`) tries what the
host can do. A mechanism that is missing is a fact in the journal, and an error if
`settings.require` demands what it would enforce.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from miniλ import journal
from miniλ.errors import InvalidParameterValue, NotEnforced
from miniλ.runtimes import catalog
from miniλ.sandbox import hierarchies, levels, volumes
from miniλ.sandbox.volumes import Volumes

if TYPE_CHECKING:
    import contextlib

    from miniλ.journal import Journal
    from miniλ.settings import Settings

PROBE_TIMEOUT = 20.0


async def choose(settings: Settings, directory: str) -> levels.Choice:
    """Return what to put around workers. `directory` is an empty one, to mount their root on."""
    without = frozenset(_split("without", settings.without, levels.MECHANISMS))
    reasons = await asyncio.to_thread(_examine, directory)
    return levels.choose(settings.sandbox, without, reasons, directory)


def _examine(directory: str) -> dict[str, str]:
    """Run the probe and return its report; if it fails, every mechanism is missing for that."""
    program = catalog.sandbox_program("probe.py")
    packages, workers = str(catalog.packages_directory()), str(catalog.workers_directory())
    # In UTF-8 also under another locale, where Python would not find a package called miniλ.
    command = [sys.executable, "-I", "-S", "-X", "utf8", program, packages, directory, workers]
    try:
        probe = subprocess.run(  # noqa: S603 - a program of this package
            command, capture_output=True, timeout=PROBE_TIMEOUT, check=True
        )
        return msgspec.json.decode(probe.stdout, type=dict[str, str])
    except subprocess.CalledProcessError as exc:
        why = exc.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as exc:
        why = str(exc)
    names = ("landlock", "seccomp", "root namespaces", "user namespaces", "users")
    return dict.fromkeys(names, f"the probe does not run: {why}")


def open_hierarchy(
    settings: Settings, choice: levels.Choice, instance: str
) -> hierarchies.Hierarchy:
    """Return the cgroup hierarchy of these settings and this level.

    Without a hard memory limit, `choice.missing` gets the reason. Raises `InvalidParameterValue`
    if the hierarchy that the settings name cannot be used.
    """
    name = settings.cgroup
    if name == "auto" and not choice.cgroup:
        name = "none"
    try:
        hierarchy, reasons = hierarchies.open_hierarchy(name, instance)
    except OSError as exc:
        msg = f"Settings: cgroup={settings.cgroup!r} cannot be had on this host: {exc}"
        raise InvalidParameterValue(msg) from exc
    if reasons and not hierarchy.limits["memory"].startswith("hard"):
        choice.missing["cgroup"] = "; ".join(reasons)
    return hierarchy


def close_hierarchy(hierarchy: hierarchies.Hierarchy, facts: Journal) -> None:
    """Remove the cgroups of a hierarchy; those that are still busy are a fact in the journal."""
    busy = hierarchy.close()
    if busy:
        what = f"Cgroups still have processes and are left for the next start to sweep: {busy}"
        facts.record(journal.Trouble(what=what))


async def open_volumes(
    choice: levels.Choice, directory: str, facts: Journal, undo: contextlib.AsyncExitStack
) -> Volumes | None:
    """Return the pool of /tmp file systems, None if the level has none or they do not work.

    `undo` closes it.
    """
    if not choice.volumes:
        return None
    reason = await asyncio.to_thread(volumes.probe, directory)
    if reason:
        choice.missing["volumes"] = reason
        return None
    pool = Volumes(directory)
    undo.push_async_callback(_close_volumes, pool, facts)
    return pool


async def _close_volumes(pool: Volumes, facts: Journal) -> None:
    busy = await asyncio.to_thread(pool.close)
    if busy:
        what = f"Volumes are still in use, and are detached: they end with their last user: {busy}"
        facts.record(journal.Trouble(what=what))
        await asyncio.to_thread(volumes.sweep, pool.directory)


def check_required(settings: Settings, limits: dict[str, str]) -> None:
    """Raise `NotEnforced` if a limit is not as hard as `settings.require` demands."""
    requirements: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in settings.require.split(","))):
        resource, colon, strength = item.partition(":")
        if resource in limits and not colon:
            first, *others = (f":{each}" for each in reversed(levels.STRENGTHS))
            msg = (
                f"Settings: require: {item!r} has no strength: write {item}{first} "
                f"(or {', '.join(others)})"
            )
            raise InvalidParameterValue(msg)
        if resource not in limits or strength not in levels.STRENGTHS:
            msg = (
                f"Settings: require: {item!r} is none of {', '.join(limits)} with "
                f":{' or :'.join(levels.STRENGTHS)}"
            )
            raise InvalidParameterValue(msg)
        requirements[resource] = strength
    unmet = levels.unmet(requirements, limits)
    if unmet:
        raise NotEnforced("; ".join([*unmet, "`minilambda doctor` says what to do about it"]))


def _split(name: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    """Return the words of a comma-separated setting. Raises `InvalidParameterValue`."""
    words = [word for part in text.split(",") if (word := part.strip())]
    for word in words:
        if word not in allowed:
            msg = f"Settings: {name}: {word!r} is none of {', '.join(allowed)}"
            raise InvalidParameterValue(msg)
    return words
