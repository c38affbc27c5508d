"""What every test has: nothing that it starts survives it, and helpers to make functions.

Theory of operation: `nothing_survives` compares what this process has before a test and after it.
That costs about 100 µs: there are 5,700 tests. Garbage is collected after a test only if something
is left, since an object in a cycle may hold it; and once after each file, so that a warning about
garbage (an unclosed file, a coroutine that was never awaited) fails in the file that made it. At
the end of the run all is collected once more, also what was frozen, and all is compared with the
beginning.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    Belongings = dict[str, frozenset[object]]

pytest_plugins = ["minilambda.testing"]
TESTS = Path(__file__).resolve().parent
# Processes that run files side by side, when all tests or all unit tests are run. One more than the
# two cores of the machine that this was measured on: many tests wait for a timeout or an exit.
WORKERS = 3
# Proofs walk all moments of a crash, or hundreds of trees and archives: `.ci/run proofs`, or
# `pytest -m proof`. The rest of their subject is tested by examples beside them.
PROOFS = {
    "test_a_crash_at_any_moment_leaves_no_half_package",
    "test_the_kernel_agrees",
    "test_we_read_what_zipfile_reads",
    "test_a_zip_with_wrong_bytes_is_unpacked_or_refused",
    "test_the_size_fits_and_one_megabyte_more_does_not",
    "test_a_power_cut_at_any_moment_loses_no_event_that_was_accepted",
    "test_kill_9_loses_no_event_that_was_accepted",
}
# A test whose name begins so opens thousands of sockets; a usual shell allows 1,024 descriptors.
NEEDS_DESCRIPTORS = "test_thousands_of"
DESCRIPTORS = 8192


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", "rb") as file:
                yield from file.read().decode().split()
        except FileNotFoundError:
            continue  # a thread that ended meanwhile


def _descriptors() -> Iterator[tuple[str, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield name, os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own


# Where this process's cgroups are made does not change while it runs: supervisors that step aside
# in a delegated cgroup2 are seen through by `places`.
_PLACES = tuple(set(hierarchies.places().values()))


def _named(directory: str, prefix: str) -> Iterator[str]:
    try:
        yield from (f"{directory}/{n}" for n in os.listdir(directory) if n.startswith(prefix))
    except FileNotFoundError:
        return


def _cgroups() -> Iterator[str]:
    # Our own, by the pid in their names: other supervisors of this machine are not ours.
    for place in _PLACES:
        yield from _named(place, f"minilambda-{os.getpid():06x}")


def _states() -> Iterator[str]:
    base = f"{tempfile.gettempdir()}/minilambda-{os.geteuid()}"
    return _named(base, f"{os.getpid():06x}")


def belongings() -> Belongings:
    """Return what this process has: children, descriptors, cgroups, state directories."""
    return {
        "children": frozenset(_children()),
        "descriptors": frozenset(_descriptors()),
        "cgroups": frozenset(_cgroups()),
        "states": frozenset(_states()),
    }


def left_since(before: Belongings) -> Belongings:
    """Return what this process has now and did not have before, garbage aside."""
    left = _difference(before)
    if left:
        gc.collect()
        left = _difference(before)
    return left


def _difference(before: Belongings) -> Belongings:
    now = belongings()
    return {what: now[what] - before[what] for what in now if now[what] - before[what]}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run files side by side if all tests are run; a few start sooner in one process."""
    requested = {Path(argument).resolve() for argument in config.args}
    return WORKERS if requested <= {TESTS.parent, TESTS, TESTS / "unit"} else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the proofs, which `-m "not proof"` in pyproject.toml leaves out."""
    for item in items:
        if getattr(item, "originalname", item.name) in PROOFS:
            item.add_marker("proof")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Raise the soft limit of descriptors, in this process only, for a test that needs it."""
    if not item.name.startswith(NEEDS_DESCRIPTORS):
        return (yield)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        return (yield)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pytest_sessionstart() -> None:
    """Take Ctrl-C also if a shell started us in the background.

    Then SIGINT is ignored, and so it is in each program that a test starts and interrupts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Walk only what tests make from here on: modules and tests are no garbage.

    libuv opens a pipe for signals with the first loop of a process, and keeps it.
    """
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not on every architecture

        uvloop.new_event_loop().close()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_survives() -> Iterator[None]:
    """No test leaves a process, a descriptor, a cgroup or a directory behind."""
    before = belongings()
    yield

    assert left_since(before) == {}


@pytest.fixture(scope="module", autouse=True)
def no_garbage_survives() -> Iterator[None]:
    """Collect the garbage of a file at its end: a warning about it fails in that file."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_survives_the_session() -> Iterator[None]:
    """No fixture, however wide its scope, leaves anything behind."""
    before = belongings()
    yield
    gc.unfreeze()
    gc.collect()

    assert left_since(before) == {}


@pytest.fixture
def function_directory(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of code directories: `function_directory("hello", app="source")`."""

    def make(name: str, **modules: str) -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        for module, source in modules.items():
            (directory / f"{module}.py").write_text(source, encoding="utf-8")
        return directory

    return make
