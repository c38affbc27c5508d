"""The private /tmp of a worker as a file system of exactly its size, for root.

Rule 1: this is the supervisor's side. It blocks (mkfs, mount, umount), so all methods but `spare`
belong into a thread; the lock is held for lists only, never across these.

Rule 2: a volume is leased once. One that is given back is unmounted and deleted, and a new one
takes its place: that takes 1 ms, where emptying a directory of 33,000 names takes 300, and no
change of a worker to its file system (attributes, ACLs, grown directories) reaches the next worker.

Theory of operation: a tmpfs is charged to the memory cgroup of the process that writes it, and
stays charged when that process is dead; the page cache of a file system on disk is reclaimed
instead. So a volume is a sparse image of ext4 on a loop device. mkfs runs for the template of a
size; a volume is a copy of the template's data, some 64 KB. The kernel clears the loop device with
the mount (LO_FLAGS_AUTOCLEAR), also if the supervisor was killed: only mounts and files below one
directory are left, and `sweep` finds both without a list.

    512.template   the empty file system
    512-7.image    volume 7; readable by root only
    512-7          where it is mounted

The sum of the volumes may be more than the disk: if the disk is full, data written to a volume
is lost (EIO), although the volume has room.

A mount namespace that is made while volumes are mounted has copies of them, and would keep them,
and so their disk space, to its end. So the directory is mounted on itself with shared propagation
(mount_namespaces(7)): a namespace that makes its copies slaves of it loses them when the supervisor
unmounts, also if the rest of the host is private.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import threading

from miniλ.sandbox import namespaces, tmp

MB = 1 << 20
BLOCK = 4096

# Free space beyond the size, so that a file of exactly the size fits together with its directory
# and extent blocks; far less than a megabyte, the unit of sizes.
ROOM = 64 * BLOCK

# No journal: a volume is not mounted again after a crash. One inode for 16 KB is mkfs's default for
# disks: 512 MB hold 33,000 files, and the millionth name is ENOSPC long before the disk is full of
# inodes. No resize_inode: a volume never grows. The inode tables of a sparse image are zeros
# already, so neither mkfs nor a kernel thread after mount writes them.
_MKFS = (
    *("-q", "-F", "-b", str(BLOCK), "-i", "16384", "-I", "256", "-m", "0"),
    *("-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1"),
)

# linux/loop.h: the same on every architecture.
_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE, _LO_FLAGS_AUTOCLEAR, _LOOP_MAJOR = 0x4C0A, 0x4C82, 4, 7
_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")


def probe(directory: str) -> str:
    """Return "" if volumes work below `directory`, else one line with the reason.

    Makes, mounts, writes and removes one of 8 MB.
    """
    if os.geteuid() != 0:
        return "not root"
    try:
        with tempfile.TemporaryDirectory(prefix="probe-", dir=directory) as path:
            volumes = Volumes(path, spares=0)
            try:
                with open(f"{volumes.lease(8).path}/file", "wb") as file:
                    file.write(b"x" * BLOCK)
            finally:
                busy = volumes.close()
            return f"cannot be unmounted: {' '.join(busy)}" if busy else ""
    except OSError as exc:
        return " ".join((exc.strerror or str(exc)).split())


class Volume:
    """A file system mounted at `path`, into which `size_mb` MB (of 2**20 bytes) fit.

    Its root directory is root's, mode 0700; `sandbox.enter` gives it to the worker's user.
    """

    def __init__(self, path: str, size_mb: int) -> None:
        self.path = path
        self.size_mb = size_mb

    def __repr__(self) -> str:
        return f"<Volume {self.path} {self.size_mb} MB>"

    def mount(self) -> None:
        """Mount the image `path`.image at `path`. Raises OSError."""
        os.mkdir(self.path, 0o700)
        _mount(f"{self.path}.image", self.path)

    def remove(self) -> None:
        """Unmount and delete it, as far as it is still there. Raises OSError (EBUSY)."""
        try:
            _unmount(self.path)
        except OSError as exc:
            if exc.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted, no directory
                raise
        for function, path in ((os.rmdir, self.path), (os.unlink, f"{self.path}.image")):
            try:
                function(path)
            except FileNotFoundError:
                pass


class Volumes:
    """The volumes below a directory: made ahead, leased, replaced, and removed at the end.

    Up to `spares` of each size are kept mounted. Methods may be called from any thread. Call
    `sweep` before, on a directory that a dead instance used.
    """

    def __init__(self, directory: str, spares: int = 4) -> None:
        self.directory = os.path.realpath(directory)
        self.spares = spares
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._every: set[Volume] = set()  # leased, spare and quarantined
        self._leased: set[Volume] = set()
        self._spare: dict[int, list[Volume]] = {}
        self._in_progress: dict[int, int] = {}  # how many spares `make_ahead` makes now, by size
        self._quarantine: list[Volume] = []
        self._is_closed = False
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o711)  # noqa: S103 - workers go through it, and list nothing
        for flags in (namespaces.MS_BIND, namespaces.MS_SHARED):
            namespaces.mount(self.directory, self.directory, None, flags)

    def make_ahead(self, size_mb: int) -> bool:
        """Make one spare volume if there are too few; return whether more are missing.

        Takes milliseconds, the first of a size some more. Raises OSError as `lease` does.
        """
        with self._lock:
            if self._is_closed or not self._needs_spare(size_mb):
                return False
            self._in_progress[size_mb] = self._in_progress.get(size_mb, 0) + 1
        volume = None
        try:
            volume = self._make(size_mb)
        finally:
            with self._lock:
                self._in_progress[size_mb] -= 1
                if volume is not None and not self._is_closed:
                    self._spare.setdefault(size_mb, []).append(volume)
                needs_more = not self._is_closed and self._needs_spare(size_mb)
        return needs_more

    def lease(self, size_mb: int) -> Volume:
        """Return an empty volume: a spare one at once, else a new one.

        Raises OSError: no space on the disk, no loop device, no right to mount, closed. To make one
        blocks for milliseconds, which `make_ahead` moves off the cold start.
        """
        volume = self.spare(size_mb)
        if volume is None:
            volume = self._make(size_mb)
            with self._lock:
                self._leased.add(volume)
        return volume

    def spare(self, size_mb: int) -> Volume | None:
        """Return an empty volume at once, or None if there is no spare: then call `lease`."""
        with self._lock:
            spare = self._spare.get(size_mb)
            volume = spare.pop() if spare else None
            if volume is not None:
                self._leased.add(volume)
        return volume

    def give_back(self, volume: Volume) -> None:
        """Take a volume back: remove it, else quarantine it, and make a new spare. Idempotent."""
        with self._lock:
            if volume not in self._leased:
                return
            self._leased.remove(volume)
            self._quarantine.append(volume)
        self.collect()
        try:
            self.make_ahead(volume.size_mb)
        except OSError:
            pass  # the next lease raises it

    def collect(self) -> list[str]:
        """Retry the removal of quarantined volumes; return the paths still busy (EBUSY)."""
        with self._lock:
            quarantine, self._quarantine = self._quarantine, []
        busy = [volume for volume in quarantine if not self._remove(volume)]
        with self._lock:
            self._quarantine += busy
        return [volume.path for volume in busy]

    def close(self) -> list[str]:
        """Remove every volume, leased ones as well, and templates; return the paths still busy."""
        with self._lock:
            self._is_closed = True
            self._spare.clear()
            self._leased.clear()
            self._quarantine = list(self._every)
        self._remove_templates()
        busy = sorted(self.collect())
        if not busy and self.directory in _mount_points(self.directory):
            _detach(self.directory)
        return busy

    def _needs_spare(self, size_mb: int) -> bool:
        return len(self._spare.get(size_mb, ())) + self._in_progress.get(size_mb, 0) < self.spares

    def _remove(self, volume: Volume) -> bool:
        try:
            volume.remove()
        except OSError:
            return False
        with self._lock:
            self._every.discard(volume)
        return True

    def _remove_templates(self) -> None:
        for name in os.listdir(self.directory):
            if name.endswith(".template"):
                os.unlink(f"{self.directory}/{name}")

    def _make(self, size_mb: int) -> Volume:
        """Make and mount a volume from the template of its size, which the first one makes."""
        template = f"{self.directory}/{size_mb}.template"
        volume = Volume(f"{self.directory}/{size_mb}-{next(self._numbers)}", size_mb)
        try:
            if not os.path.exists(template):
                # Two threads may do this at once: the later template replaces the earlier one.
                draft = Volume(f"{self.directory}/{size_mb}-{next(self._numbers)}", size_mb)
                try:
                    _format(draft)
                    os.rename(f"{draft.path}.image", template)
                finally:
                    draft.remove()
            _copy(template, f"{volume.path}.image")
            volume.mount()
        except OSError:
            volume.remove()
            raise
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._every.add(volume)
        if is_closed:
            volume.remove()
            self._remove_templates()
            raise OSError(errno.ESHUTDOWN, "the volumes are closed", self.directory)
        return volume


def sweep(directory: str) -> list[str]:
    """Unmount and delete what a dead instance left below `directory`; return those paths.

    A mount that a process still uses is detached (MNT_DETACH): it ends with that use. The directory
    itself stays, and no file outside of it is touched. Raises OSError.
    """
    if not os.path.isdir(directory):
        return []
    directory = os.path.realpath(directory)
    while points := _mount_points(directory):
        refused = [exc for point in points if (exc := _detach(point))]
        if len(refused) == len(points):
            raise refused[0]
    paths = sorted(f"{directory}/{name}" for name in os.listdir(directory))
    tmp.empty(directory)
    return paths


def _detach(point: str) -> OSError | None:
    """Unmount a mount point, at once or when its last user ends; return the error, or None.

    A mount that another one covers has no path (ENOENT) until that one is gone.
    """
    try:
        try:
            _unmount(point)
        except OSError:
            _unmount(point, namespaces.MNT_DETACH)
    except OSError as exc:
        return exc
    return None


def _mount_points(directory: str) -> list[str]:
    """Return the mount points below a directory and at it, deepest and last mounted first."""
    with open("/proc/self/mountinfo", "rb") as file:
        escaped = [line.split(b" ")[4] for line in file]
    # Blanks, tabs, newlines and backslashes are octal: proc_pid_mountinfo(5).
    points = [
        os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point))
        for point in reversed(escaped)
    ]
    below = [point for point in points if f"{point}/".startswith(f"{directory}/")]
    return sorted(below, key=lambda point: -point.count("/"))


def _format(draft: Volume) -> None:
    """Make the image of an empty file system into which `size_mb` MB (of 2**20 bytes) fit.

    The image is larger than that, by inode tables, bitmaps and the blocks that ext4 reserves for
    itself (2 %, at most 4096 blocks). By how much is measured: made, mounted, corrected, up to six
    times. Raises OSError.
    """
    program = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise OSError(errno.ENOENT, "mkfs.ext4 is not here")
    goal = draft.size_mb * MB + ROOM
    length, missing = goal, 0
    for _ in range(6):
        length += missing
        with open(f"{draft.path}.image", "wb", opener=_private) as file:
            file.truncate(length)
        mkfs = subprocess.run(  # noqa: S603 - no shell, and the path is the supervisor's
            [program, *_MKFS, f"{draft.path}.image"], check=False, capture_output=True, text=True
        )
        if mkfs.returncode != 0:
            raise OSError(errno.EIO, f"mkfs.ext4: {mkfs.stderr.strip() or mkfs.returncode}")
        draft.mount()
        os.rmdir(f"{draft.path}/lost+found")
        os.chmod(draft.path, 0o700)
        missing = goal - os.statvfs(draft.path).f_bavail * BLOCK
        _unmount(draft.path)
        os.rmdir(draft.path)
        if -ROOM < missing < ROOM:
            return
    raise OSError(errno.EINVAL, f"ext4 cannot be made to hold {draft.size_mb} MB")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _copy(source: str, target: str) -> None:
    """Copy a sparse file: the data, not the holes (lseek(2), SEEK_DATA)."""
    with open(source, "rb") as here, open(target, "xb", opener=_private) as there:
        length = os.fstat(here.fileno()).st_size
        os.ftruncate(there.fileno(), length)
        start = end = 0
        while end < length:
            try:
                start = os.lseek(here.fileno(), end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # holes only from here on
                    return
                raise
            end = os.lseek(here.fileno(), start, os.SEEK_HOLE)
            while start < end:
                start += os.copy_file_range(
                    here.fileno(), there.fileno(), end - start, start, start
                )


def _mount(image: str, point: str) -> None:
    """Mount an image by mount(2); its loop device ends with the mount. Raises OSError."""
    loop, device = _attach(image)
    try:
        # A flush would write the disk's own journal, for files that are not used after a crash.
        options = "nobarrier,noinit_itable"
        flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOATIME
        namespaces.mount(device, point, "ext4", flags, options)
    finally:
        os.close(loop)  # the mount holds it from here on; without a mount, this clears it


def _attach(image: str) -> tuple[int, str]:
    """Bind a loop device to an image: loop(4). Return its descriptor and path.

    It goes through the image's page cache: direct I/O has alignment rules that not every disk
    meets. Needs Linux 5.8 (LOOP_CONFIGURE). Raises OSError "no loop devices: ...".
    """
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        file = -1
        try:
            file = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            info = (0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, os.fsencode(image)[-63:], b"", b"")
            config = _LOOP_CONFIG.pack(file, 0, *info, *(0,) * 10)
            for _ in range(64):
                device = f"/dev/loop{(number := fcntl.ioctl(control, _LOOP_CTL_GET_FREE))}"
                if not os.path.exists(device):  # a /dev that the kernel does not fill
                    os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
                loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
                    return loop, device
                except OSError as exc:
                    os.close(loop)
                    if exc.errno != errno.EBUSY:  # another process has bound it meanwhile
                        raise
            raise OSError(errno.EBUSY, "another process took each free one, 64 times")
        finally:
            os.close(control)
            if file >= 0:
                os.close(file)
    except OSError as exc:
        raise OSError(exc.errno, f"no loop devices: {exc.strerror}", exc.filename) from exc


def _unmount(path: str, flags: int = 0) -> None:
    """Unmount, never through a link. Raises OSError, EBUSY if it is held."""
    namespaces.unmount(path, flags | namespaces.UMOUNT_NOFOLLOW)
