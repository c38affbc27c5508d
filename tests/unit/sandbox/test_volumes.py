"""Tests of /tmp as a file system of its size: real images, real mounts, as root."""

from __future__ import annotations

import collections
import errno
import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import volumes
from miniλ.sandbox.volumes import MB, Volume, Volumes, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 16  # MB: a small volume behaves as one of 512 does, and sizes have a test of their own


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """Return a directory for volumes, which is swept after the test."""
    reason = volumes.probe(str(tmp_path))
    if reason:
        pytest.skip(f"loop volumes cannot be used here: {reason}")
    # A name with a blank and a backslash: mountinfo writes both as octal numbers.
    path = tmp_path / "the volumes\\"
    path.mkdir()
    yield path
    sweep(str(tmp_path))


@pytest.fixture
def pool(base: Path) -> Iterator[Volumes]:
    """Return volumes with two spares."""
    pool = Volumes(str(base), spares=2)
    yield pool
    pool.close()


def mounts(directory: Path) -> list[str]:
    """Return the mount points below a directory, without directories mounted on themselves."""
    points = volumes._mount_points(os.path.realpath(directory))
    return [point for point in points if Path(point).name not in (directory.name, "inner")]


def bound(directory: Path) -> list[str]:
    """Return the files below a directory that a loop device is bound to."""
    names = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            names.append(path.read_text().rstrip("\n"))
        except OSError:
            continue  # another process has unbound it meanwhile
    return [name for name in names if name.startswith(f"{os.path.realpath(directory)}/")]


def remains(directory: Path) -> tuple[list[str], list[str], list[str]]:
    """Return mounts, bound loop devices and files below a directory."""
    return mounts(directory), bound(directory), sorted(os.listdir(directory))


NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def fill(volume: Volume, piece: int = 1 << 16) -> int:
    """Write one file until the volume is full; return the bytes that fit."""
    total = 0
    with Path(volume.path, "full").open("wb", buffering=0) as file:
        while True:
            try:
                total += file.write(b"x" * piece)
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                return total


def on_disk(volume: Volume) -> int:
    """Return the bytes that the image of a volume occupies."""
    return os.stat(f"{volume.path}.image").st_blocks * 512


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a child, then kill the child with SIGKILL."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    report = os.read(read, 1)
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert report == b"x"


# Sizes


@pytest.mark.parametrize("size_mb", [SIZE, 512])
def test_the_size_fits_and_one_megabyte_more_does_not(pool: Volumes, size_mb: int) -> None:
    """A file of exactly the size fits, and ENOSPC comes before the next megabyte is full."""
    volume = pool.lease(size_mb)

    assert size_mb * MB <= fill(volume) < (size_mb + 1) * MB


@pytest.mark.parametrize("size_mb", [8, 64, 513, 1024, 10240])
def test_every_size_is_met_within_half_a_megabyte(pool: Volumes, size_mb: int) -> None:
    """A new volume has its size free and up to 512 KB more, from small ones to Lambda's largest."""
    free = os.statvfs(pool.lease(size_mb).path)

    assert size_mb * MB <= free.f_bavail * free.f_bsize <= size_mb * MB + MB // 2


def test_names_end_before_the_disk_does(pool: Volumes) -> None:
    """Empty files are limited, too: ENOSPC at one for each 16 KB, and the image stays small."""
    volume = pool.lease(SIZE)
    names = (Path(volume.path, f"{number}") for number in itertools.count())

    with pytest.raises(OSError, match="No space left"):
        collections.deque((name.touch() for name in names), maxlen=0)

    os.sync()
    assert SIZE * 64 * 0.9 < len(os.listdir(volume.path)) < SIZE * 64 * 1.1
    assert on_disk(volume) < 2 * MB


def test_a_new_volume_occupies_less_than_a_megabyte(pool: Volumes) -> None:
    """An image is sparse: 512 MB before the first write are less than one on the disk."""
    volume = pool.lease(512)

    assert os.stat(f"{volume.path}.image").st_size > 512 * MB
    assert on_disk(volume) < MB


# A leased volume


def test_a_new_volume_is_empty_and_private(pool: Volumes) -> None:
    """There is no lost+found; root owns the directory, and only root may read the image."""
    volume = pool.lease(SIZE)
    top, image = os.stat(volume.path), os.stat(f"{volume.path}.image")

    assert os.listdir(volume.path) == []
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (0, 0, 0o700)
    assert (image.st_uid, stat.S_IMODE(image.st_mode)) == (0, 0o600)
    assert os.path.ismount(volume.path)
    assert volume.size_mb == SIZE


def test_mounts_have_no_devices_and_no_setuid(pool: Volumes) -> None:
    """Devices and setuid programs there give no rights, and reading writes no access times."""
    flags = os.statvfs(pool.lease(SIZE).path).f_flag
    expected = os.ST_NOSUID | os.ST_NODEV | os.ST_NOATIME

    assert expected == flags & expected


def test_volumes_are_apart(pool: Volumes) -> None:
    """A full volume takes no space from another."""
    one, two = pool.lease(SIZE), pool.lease(SIZE)
    fill(one)

    Path(two.path, "file").write_bytes(b"x" * MB)

    assert os.listdir(one.path) == ["full"]
    assert os.listdir(two.path) == ["file"]


def test_a_lease_inherits_nothing_from_the_last(pool: Volumes) -> None:
    """Neither files nor owner, mode, attributes or a grown directory."""
    volume = pool.lease(SIZE)
    new = os.statvfs(volume.path)
    for number in range(500):
        Path(volume.path, f"{number}" * 40).touch()
    Path(volume.path, "link").symlink_to("/etc")
    os.setxattr(volume.path, "user.mark", b"x")
    os.chown(volume.path, 65534, 65534)
    os.chmod(volume.path, 0o777)

    pool.give_back(volume)

    for _ in range(2):
        again = pool.lease(SIZE)
        top = os.stat(again.path)
        assert os.listdir(again.path) == []
        assert os.listxattr(again.path) == []
        assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (0, 0, 0o700)
        assert os.statvfs(again.path).f_bfree == new.f_bfree
        assert os.statvfs(again.path).f_ffree == new.f_ffree


def test_the_target_of_a_link_stays(pool: Volumes, tmp_path: Path) -> None:
    """Neither `give_back` nor `sweep` follows a worker's links out of its volume."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    volume = pool.lease(SIZE)
    Path(volume.path, "link").symlink_to(outside)

    pool.give_back(volume)
    sweep(pool.directory)

    assert (outside / "file").read_bytes() == b"precious"


# Spares


def test_spares_are_made_up_to_their_number(pool: Volumes) -> None:
    """`make_ahead` makes one at a time and returns whether more are missing, for each size."""
    assert pool.make_ahead(SIZE)
    assert not pool.make_ahead(SIZE)
    assert not pool.make_ahead(SIZE)
    assert len(mounts(Path(pool.directory))) == 2

    assert pool.make_ahead(SIZE + 1)


def test_a_lease_takes_a_spare_of_its_size(pool: Volumes) -> None:
    """A spare is leased before a volume is made, and one of another size is no spare."""
    pool.make_ahead(SIZE)
    (spare,) = mounts(Path(pool.directory))

    other = pool.lease(SIZE + 1)
    one, two = pool.lease(SIZE), pool.lease(SIZE)

    assert one.path == spare
    assert len({spare, two.path, other.path}) == 3
    assert other.size_mb == SIZE + 1


def test_no_more_than_the_spares_are_kept(pool: Volumes) -> None:
    """Of five that are given back two are replaced, and the disk space of all is freed."""
    leased = [pool.lease(SIZE) for _ in range(5)]
    fill(leased[0])
    for volume in leased:
        pool.give_back(volume)

    spares = mounts(Path(pool.directory))
    assert len(spares) == 2
    assert all(on_disk(Volume(path, SIZE)) < MB for path in spares)
    assert len(bound(Path(pool.directory))) == 2


def test_to_give_back_is_idempotent(pool: Volumes) -> None:
    """A second time has no effect, also after another volume has replaced it."""
    volume = pool.lease(SIZE)
    pool.give_back(volume)
    before = remains(Path(pool.directory))

    pool.give_back(volume)

    assert before == remains(Path(pool.directory))


def test_threads_share_a_pool(pool: Volumes) -> None:
    """Leases, returns and spares at the same time: no volume is leased twice, none is lost."""
    seen: list[str] = []
    errors: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(5):
                volume = pool.lease(SIZE)
                seen.append(volume.path)
                assert os.listdir(volume.path) == []
                Path(volume.path, "file").write_bytes(b"x")
                pool.make_ahead(SIZE)
                pool.give_back(volume)
        except BaseException as exc:  # noqa: BLE001 - asserted below, in the main thread
            errors.append(exc)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(seen) == len(set(seen)) == 20
    assert pool.collect() == []
    assert len(mounts(Path(pool.directory))) == 2


# Busy volumes


def test_a_busy_volume_is_quarantined_until_it_is_free(pool: Volumes) -> None:
    """With an open file it is not leased again, and is collected once the file is closed."""
    volume = pool.lease(SIZE)
    with Path(volume.path, "file").open("wb") as file:
        file.write(b"x")
        pool.give_back(volume)

        assert pool.collect() == [volume.path]
        assert os.path.ismount(volume.path)
        assert volume.path not in {pool.lease(SIZE).path for _ in range(4)}

    assert pool.collect() == []
    assert not os.path.exists(volume.path)
    assert not os.path.exists(f"{volume.path}.image")


def test_the_next_return_collects_a_volume_that_was_busy(pool: Volumes) -> None:
    """`give_back` calls `collect`."""
    busy, other = pool.lease(SIZE), pool.lease(SIZE)
    directory = os.open(busy.path, os.O_RDONLY)
    pool.give_back(busy)
    assert os.path.ismount(busy.path)
    os.close(directory)

    pool.give_back(other)

    assert not os.path.exists(busy.path)


def test_close_returns_the_busy_volumes(pool: Volumes) -> None:
    """A busy volume is named, the others are removed, and a second close removes it."""
    busy = pool.lease(SIZE)
    pool.make_ahead(SIZE)
    with Path(busy.path, "file").open("wb"):
        assert pool.close() == [busy.path]
        assert mounts(Path(pool.directory)) == [busy.path]

    assert pool.close() == []
    assert remains(Path(pool.directory)) == NOTHING


# Close and sweep


def test_close_leaves_nothing(pool: Volumes) -> None:
    """Leased, spare and returned: no mount, no loop device, no file, no template."""
    leased = [pool.lease(SIZE), pool.lease(SIZE), pool.lease(SIZE + 1)]
    pool.make_ahead(SIZE)
    pool.give_back(leased[0])
    fill(leased[1])
    assert len(bound(Path(pool.directory))) == 4

    assert pool.close() == []
    assert remains(Path(pool.directory)) == NOTHING


def test_a_closed_pool_makes_nothing(pool: Volumes) -> None:
    """`make_ahead` makes none, a lease raises, a late return has no effect, and nothing is left."""
    late = pool.lease(SIZE)
    pool.close()

    assert not pool.make_ahead(SIZE)
    pool.give_back(late)
    with pytest.raises(OSError, match="closed"):
        pool.lease(SIZE)
    assert remains(Path(pool.directory)) == NOTHING


def test_a_size_that_cannot_be_made_leaves_nothing(pool: Volumes) -> None:
    """A size above the largest file is an OSError, and no file is left."""
    with pytest.raises(OSError, match="too large"):
        pool.lease(1 << 40)
    with pytest.raises(OSError, match="too large"):
        pool.make_ahead(1 << 40)

    assert remains(Path(pool.directory)) == NOTHING


def test_a_sweep_removes_what_a_killed_process_left(base: Path) -> None:
    """Mounts outlive their process; the sweep removes them, and returns their paths."""
    dead, neighbour = base / "dead", base / "dead-not"

    def live() -> None:
        pool = Volumes(str(dead))
        Path(pool.lease(SIZE).path, "file").write_bytes(b"x")
        pool.make_ahead(SIZE)

    other = Volumes(str(neighbour))
    volume = other.lease(SIZE)
    Path(volume.path, "file").write_bytes(b"precious")
    in_child(live)
    points, devices, names = remains(dead)
    assert (len(points), len(devices), len(names)) == (2, 2, 5)

    assert [str(dead / name) for name in names] == sweep(str(dead))

    assert remains(dead) == NOTHING
    assert Path(volume.path, "file").read_bytes() == b"precious"
    assert mounts(neighbour) == [volume.path]
    assert other.close() == []


def test_a_sweep_detaches_a_busy_volume(base: Path) -> None:
    """A process with an open file keeps a dead instance's volume; its paths are gone at once."""
    pool = Volumes(str(base))
    with Path(pool.lease(SIZE).path, "file").open("w+b") as file:
        assert len(sweep(str(base))) == 3
        file.write(b"still here")
        file.seek(0)

        assert file.read() == b"still here"
        assert mounts(base) == os.listdir(base) == []

    assert remains(base) == NOTHING


def test_a_sweep_takes_mounts_in_mounts(base: Path) -> None:
    """A mount inside of a volume, or over one, is unmounted before it."""
    pool = Volumes(str(base))
    outer = pool.lease(SIZE)
    inner = Volumes(f"{outer.path}/inner")
    inner.lease(8)
    volumes._mount(f"{pool.lease(SIZE).path}.image", outer.path)
    assert len(mounts(base)) >= 4  # and the propagated copies of the mount over `outer`

    sweep(str(base))

    assert remains(base) == NOTHING


def test_a_sweep_of_an_empty_directory_does_nothing(base: Path) -> None:
    """The same for a directory that does not exist."""
    assert sweep(str(base)) == []
    assert sweep(str(base / "never")) == []


# The probe


def test_the_probe_leaves_nothing(base: Path) -> None:
    """It makes a volume, and removes it."""
    assert volumes.probe(str(base)) == ""
    assert remains(base) == NOTHING


def test_the_probe_names_the_missing_part(base: Path) -> None:
    """In one line: no directory, no root."""
    assert "No such file" in volumes.probe(str(base / "never"))

    # In a process of its own: a change of user makes a process undumpable, which hides it in /proc.
    program = (
        "import os, sys; from miniλ.sandbox import volumes; os.seteuid(65534);"
        "print(volumes.probe(sys.argv[1]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, str(base)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert process.stdout.strip() == "not root"
