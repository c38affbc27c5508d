"""Tests of packages: code arrives as it was, or not at all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.store import packages
from miniλ.store.packages import archive, kept_archive, merge, publish, unzipped_size
from tests.unit.store.code import APP, linked, refused, tree, zipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_an_archive_is_kept_beside_what_was_in_it(tmp_path: Path, store: Path) -> None:
    """The sha256 and the size are those of the file, as Lambda has them, and so is its name."""
    code = zipped(tmp_path, {"app.py": APP, "deep/er/x.py": b"x"})

    package = publish(code, store)

    assert tree(package.path) == ["app.py", "deep", "deep/er", "deep/er/x.py"]
    assert (Path(package.path) / "app.py").read_bytes() == APP
    digest = hashlib.sha256(code.read_bytes())
    assert base64.b64encode(digest.digest()).decode() == package.sha256
    assert code.stat().st_size == package.size
    assert {digest.hexdigest(), f"{digest.hexdigest()}.zip"} == set(os.listdir(store))
    assert code.read_bytes() == kept_archive(Path(package.path)).read_bytes()


def test_a_kept_archive_is_nobody_elses(tmp_path: Path, store: Path) -> None:
    """Its owner may write into the file: the kept archive is a copy."""
    code = zipped(tmp_path, {"app.py": APP})
    before = code.read_bytes()

    package = publish(code, store)
    with code.open("r+b") as file:
        file.write(b"evil")

    assert before == kept_archive(Path(package.path)).read_bytes()


def test_the_same_archive_twice_is_stored_once(tmp_path: Path, store: Path) -> None:
    """The same bytes have the same path, and are not unpacked again: there is no room for it."""
    code = zipped(tmp_path, {"zeros": bytes(100_000)})
    first = publish(code, store)
    with files_of_at_most(10_000):
        second = publish(code, store)

    assert first == second
    assert {first.path, f"{first.path}.zip"} == {str(path) for path in store.iterdir()}


def test_an_archive_that_was_not_kept_is_kept_the_next_time(tmp_path: Path, store: Path) -> None:
    """The store of an older version has no archives."""
    code = zipped(tmp_path, {"app.py": APP})
    kept = kept_archive(Path(publish(code, store).path))
    kept.unlink()

    publish(code, store)

    assert code.read_bytes() == kept.read_bytes()


def test_a_directory_has_no_archive(source: Path, store: Path) -> None:
    """One is made at a download."""
    package = publish(source, store)

    assert [package.path] == [str(path) for path in store.iterdir()]
    assert not kept_archive(Path(package.path)).exists()


def test_a_message_has_the_path(tmp_path: Path, store: Path) -> None:
    """A caller that passed a path finds it in the message."""
    code = tmp_path / "code.zip"
    code.write_bytes(b"not a zip")

    refused(code, store, rf"^Could not unzip uploaded file\. .* \({code}\)$")


def test_a_store_behind_a_link_takes_links(tmp_path: Path, store: Path) -> None:
    """The state directory may be one: what is inside is inside all the same."""
    (tmp_path / "way").symlink_to(store)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "app.py").write_bytes(APP)
    (tmp_path / "source" / "link").symlink_to("app.py")

    copied = Path(publish(tmp_path / "source", tmp_path / "way").path)

    assert (copied / "link").read_bytes() == APP


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file become larger, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("uploaded", [False, True])
@pytest.mark.parametrize("name", ["source", "code.zip"])
def test_a_disk_that_is_full_is_no_fault_of_the_code(
    tmp_path: Path, source: Path, store: Path, *, uploaded: bool, name: str
) -> None:
    """A retry may succeed, and nothing half written is in its way."""
    (source / "zeros").write_bytes(bytes(100_000))
    zipped(tmp_path, {"zeros": bytes(100_000)})
    before = tree(tmp_path)

    with files_of_at_most(10_000), pytest.raises(ServiceError, match="File too large") as caught:
        publish(packages.Upload(tmp_path / name) if uploaded else tmp_path / name, store)

    assert uploaded is not (str(tmp_path) in str(caught.value))
    moved = {"code.zip"} if uploaded else set()
    assert set(before) - moved == set(tree(tmp_path)) - moved


def test_a_store_that_is_gone_is_no_fault_of_an_upload(tmp_path: Path) -> None:
    """Any error of our own files is ours."""
    code = zipped(tmp_path, {"app.py": APP})

    with pytest.raises(ServiceError, match=r"^Uploaded file cannot be kept: No such file"):
        publish(packages.Upload(code), tmp_path / "gone")


def test_the_same_code_at_the_same_time_is_stored_once(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rename finds the package there, though no thread saw it before the first one."""
    code = zipped(tmp_path, {"app.py": APP, "b": bytes(1000)})
    everybody = threading.Barrier(4)
    real = packages._libc

    def syncfs(descriptor: int) -> int:
        everybody.wait(timeout=30)
        return int(real.syncfs(descriptor))

    monkeypatch.setattr(packages, "_libc", SimpleNamespace(syncfs=syncfs))
    with ThreadPoolExecutor(4) as pool:
        paths = {package.path for package in pool.map(publish, [code] * 4, [store] * 4)}

    (path,) = paths
    assert {path, f"{path}.zip"} == {str(each) for each in store.iterdir()}
    assert tree(path) == ["app.py", "b"]


def test_the_unzipped_size_is_that_of_files_and_links(tmp_path: Path, store: Path) -> None:
    """Directories and the archive itself are not counted."""
    plain = publish(zipped(tmp_path, {"a": b"x" * 1000, "d/b": b"y" * 234}), store)
    link = publish(linked(tmp_path, "link", "somewhere"), store)

    assert 1234 == unzipped_size(Path(plain.path))
    assert len("somewhere") == unzipped_size(Path(link.path))


# Downloads


def test_an_archive_of_a_directory_brings_it_back(
    tmp_path: Path, source: Path, store: Path
) -> None:
    """Content, execute bits, links and empty directories: published again it is the same."""
    (source / "lib").mkdir()
    (source / "empty").mkdir()
    (source / "lib" / "up.py").symlink_to("../app.py")
    (source / "lib" / "λ.bin").write_bytes(bytes(range(256)) * 10_000)
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "run").chmod(0o700)
    package = Path(publish(source, store).path)

    archive(package, tmp_path / "made.zip")

    back = Path(publish(tmp_path / "made.zip", store).path)
    assert publish(package, store).sha256 == publish(back, store).sha256
    assert tree(package) == tree(back)


def test_an_archive_is_always_the_same(tmp_path: Path, source: Path, store: Path) -> None:
    """At any time, and with any caches beside the code."""
    (source / "b").mkdir()
    for name in ("b/x.py", "c.py", "b/w.py"):
        (source / name).write_bytes(APP)
    (source / "a").mkdir()
    first = Path(publish(source, store).path)
    archive(first, tmp_path / "first.zip")
    shutil.rmtree(first)
    (source / "b" / "__pycache__").mkdir()
    (source / "b" / "__pycache__" / "x.pyc").write_bytes(b"x")
    os.utime(source / "app.py", (1_000_000_000, 1_000_000_000))
    second = Path(publish(source, store).path)

    archive(second, tmp_path / "second.zip")

    assert first == second
    assert "b/__pycache__/x.pyc" in tree(second)
    with zipfile.ZipFile(tmp_path / "second.zip") as made:
        assert ["a/", "app.py", "b/", "c.py", "b/w.py", "b/x.py"] == made.namelist()
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_a_name_that_no_zip_can_hold_is_said(tmp_path: Path, source: Path, store: Path) -> None:
    """Lambda refuses it too; no half of an archive is left."""
    (source / os.fsdecode(b"\xff")).touch()
    package = Path(publish(source, store).path)

    with pytest.raises(InvalidParameterValue, match=r"a name that is no UTF-8.*'\\udcff'"):
        archive(package, tmp_path / "made.zip")

    assert not (tmp_path / "made.zip").exists()


# Interrupted in the middle


def test_what_nobody_has_is_collected(tmp_path: Path, source: Path, store: Path) -> None:
    """With its archive, and with what a crash left; what is in use keeps both."""
    used = publish(zipped(tmp_path, {"app.py": APP}), store)
    publish(zipped(tmp_path, {"app.py": APP, "b": b""}), store)
    directory = publish(source, store)
    (store / ".staging-0" / "code" / "d").mkdir(parents=True)
    (store / ".staging-0" / "zip").touch()

    packages.collect(store, {used.path, directory.path})

    expected = {used.path, f"{used.path}.zip", directory.path}
    assert expected == {str(path) for path in store.iterdir()}
    assert tree(used.path) == ["app.py"]


def killed(moment: int, work: Callable[[], object]) -> bool:
    """Do this work in a child that SIGKILL ends at its n-th call of C; return if it got there."""
    child = os.fork()
    if child == 0:
        calls = 0

        def count(_frame: object, event: str, _function: object) -> None:
            nonlocal calls
            calls += event == "c_call"
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    return True


def whole(path: Path) -> dict[str, str | bytes]:
    """Return a tree, its links and contents."""
    if not path.is_dir():
        return {"": path.read_bytes()}
    return {
        name: os.readlink(path / name)
        if (path / name).is_symlink()
        else "directory"
        if (path / name).is_dir()
        else (path / name).read_bytes()
        for name in tree(path)
    }


@pytest.mark.parametrize("what", ["archive", "directory", "layers", "collect"])
def test_a_crash_at_any_moment_leaves_no_half_package(
    tmp_path: Path, source: Path, what: str
) -> None:
    """SIGKILL before each call: a final name has a whole package, and publishing again works."""
    (source / "d").mkdir()
    (source / "d" / "link").symlink_to("../app.py")
    (source / "d" / "b").write_bytes(b"b" * 10_000)
    code = zipped(tmp_path, {"app.py": APP, "d/b": b"b" * 10_000, "e/c": b""})
    before = tmp_path / "before"
    before.mkdir()
    parts = [publish(source, before), publish(code, before)]
    store = tmp_path / "work"

    def work(*, durable: bool = True) -> None:
        if what == "collect":
            packages.collect(store, {str(store / Path(parts[1].path).name)})
        elif what == "layers":
            merge([store / Path(part.path).name for part in parts], store, durable=durable)
        else:
            publish(source if what == "directory" else code, store, durable=durable)

    def start(store: Path) -> None:
        shutil.rmtree(store, ignore_errors=True)
        if what in ("collect", "layers"):
            shutil.copytree(before, store, symlinks=True)
        else:
            store.mkdir()

    start(store)
    known = {path.name: whole(path) for path in store.iterdir()}
    work()
    done = {path.name for path in store.iterdir()}
    known |= {path.name: whole(path) for path in store.iterdir()}
    moment = 0
    while True:
        moment += 1
        start(store)
        if not killed(moment, work):
            break
        final = {path.name: whole(path) for path in store.iterdir() if path.name[0] != "."}

        assert final == {name: known[name] for name in final}
        if what == "archive":  # without its own, code is taken for a directory's
            assert sorted(final) in ([], sorted(done), [max(done)])
        work(durable=False)
        packages.collect(store, {str(store / name) for name in done})
        assert done == {path.name for path in store.iterdir()}
    assert moment > 30


def traced(arguments: list[str], *options: str) -> tuple[list[str], str]:
    """Run `publish` under strace; return its calls that sync and rename, and its output."""
    program = (
        "import sys; from pathlib import Path; from miniλ.store import packages\n"
        "print('start', flush=True)\n"
        "try: packages.publish(sys.argv[1], Path(sys.argv[2]), durable=sys.argv[3] == 'durable')\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    calls = "trace=syncfs,fsync,fdatasync,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-e", calls, *options]
    command += [sys.executable, "-B", "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"strace cannot be used here: {exc}")
    lines = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", done.stderr, re.MULTILINE)
    return [line for line in lines if line != "write"], done.stdout


def test_a_package_is_on_disk_before_it_has_its_name(tmp_path: Path, store: Path) -> None:
    """All of it first, then the names, the archive's before the code's, then the names are, too."""
    code = zipped(tmp_path, {"app.py": APP})

    calls, _ = traced([str(code), str(store), "durable"])
    assert ["syncfs", "rename", "rename", "fsync"] == calls

    again, _ = traced([str(code), str(store), "durable"])
    assert ["fsync"] == again


def test_a_state_that_nobody_keeps_waits_for_no_disk(tmp_path: Path, store: Path) -> None:
    """A temporary state is removed with its process anyway."""
    calls, _ = traced([str(zipped(tmp_path, {"app.py": APP})), str(store), "not"])

    assert ["rename", "rename"] == calls


def test_a_disk_that_fails_gives_no_package(tmp_path: Path, store: Path) -> None:
    """A package that could not be written is not published, and the error is ours."""
    code = zipped(tmp_path, {"app.py": APP})

    calls, printed = traced([str(code), str(store), "durable"], "-e", "inject=syncfs:error=EIO")

    assert ["syncfs"] == calls
    assert "ServiceError" in printed
    assert [] == list(store.iterdir())
