"""This module is the choice of a sandbox: asked of the host once, when a supervisor opens.

What the operator says (`settings`) is a bound, what the host can do is found out by a program of
its own (`sandbox.probe`), and what is missing is a fact in the journal, or an error where it is
required.
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
    """Return what to put around workers. `directory` is an empty one, for their root."""
    without = frozenset(_listed("without", settings.without, levels.MECHANISMS))
    found = await asyncio.to_thread(_examine, directory)
    return levels.choose(settings.sandbox, without, found, directory)


def _examine(directory: str) -> dict[str, str]:
    """Run the probe; where it cannot even run, nothing can be had, and that is why."""
    program = catalog.sandbox_program("probe.py")
    packages, workers = str(catalog.packages_directory()), str(catalog.workers_directory())
    # In UTF-8 also under another locale, where Python would not find a package called miniλ.
    command = [sys.executable, "-I", "-S", "-X", "utf8", program, packages, directory, workers]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, timeout=PROBE_TIMEOUT, check=True
        )
        return msgspec.json.decode(done.stdout, type=dict[str, str])
    except subprocess.CalledProcessError as exc:
        why = exc.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as exc:
        why = str(exc)
    names = ("landlock", "seccomp", "root namespaces", "user namespaces", "users")
    return dict.fromkeys(names, f"the probe does not run: {why}")


def open_hierarchy(
    settings: Settings, choice: levels.Choice, instance: str
) -> hierarchies.Hierarchy:
    """Return the cgroup hierarchy of these settings and this level; notes why not in `missing`."""
    wanted = settings.cgroup
    if wanted == "auto" and not choice.cgroup:
        wanted = "none"
    try:
        hierarchy, refused = hierarchies.open_hierarchy(wanted, instance)
    except OSError as exc:
        msg = f"Settings: cgroup={settings.cgroup!r} cannot be had on this host: {exc}"
        raise InvalidParameterValue(msg) from exc
    if refused and not hierarchy.limits["memory"].startswith("hard"):
        choice.missing["cgroup"] = "; ".join(refused)
    return hierarchy


def close_hierarchy(hierarchy: hierarchies.Hierarchy, facts: Journal) -> None:
    """Remove the cgroups of a hierarchy; what will not go is told."""
    left = hierarchy.close()
    if left:
        facts.record(journal.Trouble(what=f"cgroups that will not go: {left}"))


async def open_volumes(
    choice: levels.Choice, directory: str, facts: Journal, undo: contextlib.AsyncExitStack
) -> Volumes | None:
    """Return where /tmp's of exact size come from, where that is root and it works."""
    if not choice.volumes:
        return None
    why = await asyncio.to_thread(volumes.probe, directory)
    if why:
        choice.missing["volumes"] = why
        return None
    opened = Volumes(directory)
    undo.push_async_callback(_close_volumes, opened, facts)
    return opened


async def _close_volumes(opened: Volumes, facts: Journal) -> None:
    left = await asyncio.to_thread(opened.close)
    if left:
        facts.record(journal.Trouble(what=f"volumes that will not go: {left}"))
        await asyncio.to_thread(volumes.sweep, opened.directory)


def check_required(settings: Settings, limits: dict[str, str]) -> None:
    """Raise `NotEnforced` where a limit is not held as hard as `settings.require` says."""
    required: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in settings.require.split(","))):
        resource, _, strength = item.partition(":")
        if resource not in limits or strength not in levels.STRENGTHS:
            msg = (
                f"Settings: require: {item!r} is none of {', '.join(limits)} with "
                f":{' or :'.join(levels.STRENGTHS)}"
            )
            raise InvalidParameterValue(msg)
        required[resource] = strength
    unmet = levels.unmet(required, limits)
    if unmet:
        raise NotEnforced("; ".join([*unmet, "`minilambda doctor` says what to do about it"]))


def _listed(name: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    """Return the words of a setting that is a list parted by commas."""
    words = [word for part in text.split(",") if (word := part.strip())]
    for word in words:
        if word not in allowed:
            msg = f"Settings: {name}: {word!r} is none of {', '.join(allowed)}"
            raise InvalidParameterValue(msg)
    return words
