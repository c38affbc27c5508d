"""Namespaces: which files, processes, host names and sockets a worker can name at all.

Theory of operation, in the order of time:

1. The zygote takes a mount and a pid namespace (`unshare_zygote`), without root inside a user
   namespace of its own. There it makes, once, the root directory of all its workers
   (`RootFilesystem`): a small tmpfs with read-only binds of the system's and the interpreter's
   directories.
2. Ahead of an invocation it forks an init process and a standby worker into a new pid namespace
   (`open_namespaces`). The init process makes the mount, ipc and uts namespaces, pivots to the root
   file system and unmounts the old one. From then on it only reaps. The process that runs the
   handler is not pid 1, so its signals to itself work as usual.
3. The worker joins (`WorkerNamespaces.join`), and is told which function it is. The mounts that
   depend on the function (code, layers, /tmp) are cloned by the zygote, which still sees the host,
   and passed as descriptors (`clone_mount`); the worker attaches them (`attach`).

Rule 1: the host sees none of these mounts. The mounts of a namespace are gone with its
last process, however that process ended.

Rule 2: the kernel kills all processes of a pid namespace with its init. The zygote is the init of
its own, so all below it dies with it. A worker's init is the zygote's child, and is killed when the
worker has ended: that ends daemons, and no fork is faster.

Sources: namespaces(7), pid_namespaces(7), user_namespaces(7), mount_setattr(2) (Linux 5.12),
open_tree(2), pivot_root(2). No glibc older than 2.36 has the new calls: they go by number, which
is the same on every architecture for calls that are younger than Linux 5.1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys

from miniλ.sandbox import processes

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 2, 4, 8, 1024
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4

# The paths that Lambda has, and that handlers and libraries expect.
TASK_ROOT, LAYERS, RUNTIME, TMP = "/var/task", "/opt", "/var/runtime", "/tmp"  # noqa: S108

# The system's directories. One that is a symbolic link on the host is a link in the root too.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# The parts of /etc that programs need to find libraries, names, hosts, time and certificates. A
# worker sees no others (test_etc_is_a_choice_of_the_hosts): a host's configuration holds secrets,
# and private keys lie beside certificates.
ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
DEVICES = ("null", "zero", "random", "urandom")
# The parts of /proc that are not about processes and that user 0 may write without a capability. A
# worker is user 0 where the supervisor is and the worker has no user of its own.
SYSTEM_WIDE = ("proc/sys", "proc/irq", "proc/bus", "proc/fs", "proc/acpi", "proc/sysrq-trigger")

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def unshare(flags: int) -> None:
    """Move to new namespaces of the kinds in `flags` (unshare(2)). Raises OSError."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount (mount(2)). Raises OSError with the target in it."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {target}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount (umount2(2)); by default lazily: it is gone when its last user is."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def _restrict(descriptor: int, path: str, attributes: int) -> None:
    """Add attributes to a mount and to those below it (mount_setattr(2)), and make them private.

    A copy of a shared mount is its peer: a mount that a worker makes inside would appear on the
    host.
    """
    changes = _MountAttributes(attr_set=attributes, propagation=MS_PRIVATE)
    _syscall(
        f"mount_setattr {path}",
        SYS_MOUNT_SETATTR,
        descriptor,
        path.encode(),
        AT_RECURSIVE | (0 if path else AT_EMPTY_PATH),
        ctypes.byref(changes),
        ctypes.c_size_t(ctypes.sizeof(changes)),
    )


def clone_mount(path: str, *, read_only: bool) -> int:
    """Return a descriptor of a detached mount of `path` (open_tree(2)), for `attach`."""
    descriptor = _syscall(
        f"open_tree {path}",
        SYS_OPEN_TREE,
        AT_FDCWD,
        os.fsencode(path),
        ctypes.c_uint(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE),
    )
    try:
        attributes = ATTR_NOSUID | ATTR_NODEV | (ATTR_RDONLY if read_only else 0)
        _restrict(descriptor, "", attributes)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def attach(descriptor: int, target: str) -> None:
    """Mount a detached mount at `target` (move_mount(2)), and close its descriptor."""
    try:
        _syscall(
            f"move_mount {target}",
            SYS_MOVE_MOUNT,
            descriptor,
            b"",
            AT_FDCWD,
            os.fsencode(target),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        )
    finally:
        os.close(descriptor)


def unshare_zygote(*, user: bool) -> None:
    """Take mount and pid namespaces for the zygote; with `user`, in a user namespace of its own.

    The supervisor's user keeps its number there: files and signals stay what they are. The host's
    mounts and unmounts still reach the zygote (MS_SLAVE), so it keeps no file system of it busy.

    Returns in a child, the init of the new pid namespace: only processes forked after unshare(2)
    are in it. The calling process waits for it and exits with its status.
    """
    if user:
        enter_user_namespace()
    unshare(CLONE_NEWNS | CLONE_NEWPID)
    mount("none", "/", None, MS_REC | MS_SLAVE)
    pid = os.fork()
    if pid:
        processes.close_from(0)
        os._exit(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
    processes.die_with_parent()


def enter_user_namespace() -> None:
    """Get every capability, over objects that are made from here on alone. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            # Where AppArmor restricts user namespaces, Ubuntu allows unshare and refuses this.
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class RootFilesystem:
    """The root directory of all workers of a zygote, put together once, below `directory`."""

    def __init__(self, directory: str, runtime: str) -> None:
        """Mount it. `runtime` is the directory of the workers' own programs. Raises OSError."""
        self.directory = directory
        mount("minilambda", directory, "tmpfs", MS_NOSUID, "mode=755,size=16m,nr_inodes=4096")
        for name in ("proc", "dev", "etc", "tmp", "run", "var", "home", "root"):
            os.mkdir(f"{directory}/{name}", 0o755)
        for path in (TASK_ROOT, LAYERS, RUNTIME):
            os.makedirs(directory + path, 0o755)
        os.symlink("/tmp", f"{directory}/var/tmp")  # noqa: S108 - the worker's own
        for path in SYSTEM:
            if os.path.islink(path):
                os.symlink(os.readlink(path), directory + path)
            else:
                self.bind(path)
        for name in ETC:
            self._bind_etc(name)
        for name in DEVICES:
            target = f"{directory}/dev/{name}"
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o666))
            mount(f"/dev/{name}", target, None, MS_BIND)
        for name, link in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            os.symlink(f"/proc/self/fd{link}", f"{directory}/dev/{name}")
        attach(clone_mount(runtime, read_only=True), directory + RUNTIME)
        # The interpreter, at its own path, by which it finds its library.
        for path in sorted({os.path.realpath(p) for p in (sys.base_prefix, sys.prefix)}):
            if not is_within(path, "/usr"):
                self.bind(path)

    def bind(self, path: str) -> None:
        """Mount a directory of the host in the root, read-only; skipped if the host has none."""
        if os.path.isdir(path):
            self.make_mount_point(path)
            attach(clone_mount(path, read_only=True), self.directory + path)

    def make_mount_point(self, path: str) -> None:
        """Make an empty directory to mount on; inside /tmp the worker makes it itself."""
        if not is_within(path, TMP):
            os.makedirs(self.directory + path, 0o755, exist_ok=True)

    def _bind_etc(self, name: str) -> None:
        """Mount a file or directory of /etc, read-only; skipped if the host has none."""
        # A link is followed. The mount is of the inode: a file that the host writes anew in place
        # changes for workers too, one that it replaces by rename(2) does not until the next zygote.
        source, target = f"/etc/{name}", f"{self.directory}/etc/{name}"
        try:
            mode = os.stat(source).st_mode
        except OSError:
            return
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        if stat.S_ISDIR(mode):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
        attach(clone_mount(source, read_only=True), target)

    def pivot(self) -> None:
        """Make it this process's /, with a /proc of its own, and unmount the old /."""
        unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        os.chdir(self.directory)
        _restrict(AT_FDCWD, ".", ATTR_RDONLY | ATTR_NOSUID)
        mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        for path in SYSTEM_WIDE:
            if os.path.exists(path):
                mount(path, path, None, MS_BIND)
                _restrict(AT_FDCWD, path, ATTR_RDONLY)
        number = SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            msg = f"no number of pivot_root is known for {os.uname().machine}"
            raise OSError(msg)
        # The new root goes on top of the old one, which is then unmounted from under it: so the new
        # root needs no directory for the old one (pivot_root(2), "pivot_root(".", ".")").
        _syscall("pivot_root", number, b".", b".")
        unmount(".")
        os.chdir("/")


class WorkerNamespaces:
    """The namespaces of one worker, and the init process that holds them."""

    def __init__(self, init: int, pidfd: int, ready: int) -> None:
        self.init = init
        self._pidfd = pidfd
        self._ready = ready

    def join(self) -> None:
        """Enter them, in the worker that was forked into the pid namespace. Raises OSError."""
        # The init process writes "ready", or its error.
        report = os.read(self._ready, 4096).decode(errors="replace")
        if report != "ready":
            raise OSError(report or "the init process of the namespaces died")
        flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
        _check(_libc.setns(self._pidfd, flags), "setns")
        os.chdir("/")
        self.close()

    def close(self) -> None:
        """Close the descriptors that only `join` needs."""
        os.close(self._pidfd)
        os.close(self._ready)


def open_namespaces(rootfs: RootFilesystem, own: int) -> WorkerNamespaces:
    """Fork an init process into a new pid namespace; the zygote's next children are in it too.

    `own` is a descriptor of the zygote's pid namespace (`restore_pid_namespace`). Raises OSError.
    """
    ready, report = os.pipe2(os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWPID)
        init = os.fork()
        if init == 0:
            _run_init(rootfs, report)
        return WorkerNamespaces(init, os.pidfd_open(init), ready)
    except OSError:
        os.close(ready)
        restore_pid_namespace(own)
        raise
    finally:
        os.close(report)


def restore_pid_namespace(own: int) -> None:
    """Fork children into the zygote's pid namespace again, from here on (setns(2))."""
    _check(_libc.setns(own, CLONE_NEWPID), "setns")


def _run_init(rootfs: RootFilesystem, report: int) -> None:
    """Be pid 1: make the namespaces, report it, and reap until killed. Never returns."""
    try:
        os.setsid()
        processes.die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps its children at once
        rootfs.pivot()
        os.write(report, b"ready")
        # A copy of the zygote's socket would keep its other end from seeing that the zygote died.
        processes.close_from(0)
        # A sleep(1) that ignores SIGCHLD reaps as well, in a twentieth of the memory of Python.
        for program in ("/bin/sleep", "/usr/bin/sleep"):
            try:
                os.execve(program, ["sleep", "2147483647"], {})  # noqa: S606 - no shell is needed
            except OSError:
                continue  # the host has none there
        while True:
            signal.pause()
    except BaseException as exc:  # noqa: BLE001 - it is reported, and this copy ends below
        os.write(report, str(exc).encode(errors="replace")[:4096])
    finally:
        os._exit(1)


def unshare_network() -> None:
    """Replace the host's network by a loopback (network_namespaces(7)). Raises OSError."""
    import fcntl  # noqa: PLC0415 - only for functions with network="none"
    import socket  # noqa: PLC0415
    import struct  # noqa: PLC0415

    unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCSIFFLAGS (netdevice(7)) with IFF_UP.
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))


def is_within(path: str, directory: str) -> bool:
    """Return whether a path is a directory or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def probe(directory: str, runtime: str, *, user: bool) -> str:
    """Return "" if a worker can have namespaces of its own here, else one line that says why not.

    Takes the steps of a zygote and of a worker in a forked child.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, _try(directory, runtime, user=user).encode(errors="replace")[:1000])
        finally:
            os._exit(0)
    os.close(writer)
    report = b""
    while piece := os.read(reader, 4096):
        report += piece
    os.close(reader)
    os.waitpid(pid, 0)
    return "" if report == b"holds" else report.decode(errors="replace") or "the probe died"


def _try(directory: str, runtime: str, *, user: bool) -> str:
    """Take the steps; return "holds", or what is in the way."""
    try:
        unshare_zygote(user=user)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        spaces = open_namespaces(RootFilesystem(directory, runtime), own)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                spaces.join()
                status = 0 if os.getpid() == 2 and not os.path.exists("/sys/kernel") else 3  # noqa: PLR2004
            finally:
                os._exit(status)
        restore_pid_namespace(own)
        status = os.waitpid(pid, 0)[1]
        os.kill(spaces.init, signal.SIGKILL)
        os.waitpid(spaces.init, 0)
    except OSError as exc:
        return exc.strerror or str(exc)
    return "holds" if status == 0 else f"namespaces cannot be joined (status {status})"
