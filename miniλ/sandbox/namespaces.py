"""This module is namespaces: what a worker can name at all. Files, processes, hosts, sockets.

Theory of operation, in the order of time:

1. The zygote takes a mount and a pid namespace (`settle`), without root inside a user namespace of
   its own, and puts together there, once, what the root directory of every worker is (`Root`): a
   small tmpfs with read-only binds of the system's and the interpreter's directories.
2. Ahead of an invocation it forks, into a new pid namespace, an init process and the worker that
   is to be (`open_box`). The init process makes the mount, ipc and uts namespaces, takes the root
   for its own and lets go of the old one. It reaps, and nothing else: whoever runs a handler is
   not pid 1, so signals to itself work as usual.
3. The worker joins (`Box.join`), and learns which function it is. The two mounts that depend on
   it, code and /tmp, are made by the zygote, which still sees the host, and handed over as
   descriptors (`detached`); the worker attaches them (`attach`).

Rule 1: nothing is ever mounted where the host could see it. With the last process of a namespace
its mounts are gone, whatever way that process ended.

Rule 2: the kernel kills everybody in a pid namespace with its init. The zygote is the init of its
own, so all below it dies with it; each worker's is the zygote's child, and is killed when the
worker has ended. That is what ends daemons, and what no fork outruns.

Sources: namespaces(7), pid_namespaces(7), user_namespaces(7), mount_setattr(2) (Linux 5.12),
open_tree(2), pivot_root(2). No glibc older than 2.36 knows the new calls: they go by number, which
is the same on every architecture that is younger than Linux 5.1.
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

# Where Lambda has them, and handlers and libraries expect them.
TASK_ROOT, LAYERS, RUNTIME, TMP = "/var/task", "/opt", "/var/runtime", "/tmp"  # noqa: S108

# The system's directories. Those that are symbolic links here are links in the root too.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What of /etc programs need to find libraries, names, hosts, time and certificates. Nothing else of
# it: a host's configuration holds secrets, and private keys lie beside certificates.
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
# What of /proc is not about processes, and root's to write: a worker that is user 0, which it is
# where it has no user of its own, needs no capability for that.
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
    """Leave the namespaces that `flags` name for new ones (unshare(2)). Raises OSError."""
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
    """Take a mount off the tree (umount2(2)); by default, when its last user has left."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def _restrict(descriptor: int, path: str, attributes: int) -> None:
    """Add attributes to a mount and to those below it (mount_setattr(2)), and make them private.

    A copy of a shared mount is its peer: what a worker mounts inside would appear on the host.
    """
    wanted = _MountAttributes(attr_set=attributes, propagation=MS_PRIVATE)
    _syscall(
        f"mount_setattr {path}",
        SYS_MOUNT_SETATTR,
        descriptor,
        path.encode(),
        AT_RECURSIVE | (0 if path else AT_EMPTY_PATH),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )


def detached(path: str, *, read_only: bool) -> int:
    """Return a mount of `path` that is nowhere yet (open_tree(2)). Whoever gets it attaches it."""
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
    """Put a detached mount in its place (move_mount(2)), and close the descriptor."""
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


def settle(*, user: bool) -> None:
    """Take mount and pid namespaces for the zygote; with `user`, in a user namespace of its own.

    Our user keeps its number in there: files and signals stay what they are. What the host mounts
    and unmounts from now on is followed (MS_SLAVE), so that we hold nothing of it back.

    Returns in a child, the init of the new pid namespace: only who is forked after unshare(2) is
    in it. The caller's process waits for it and leaves with it.
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
    """Have every capability, over nothing but what is made from here on. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            # Ubuntu lets everybody unshare and refuses this, where AppArmor restricts it.
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class Root:
    """What every worker of a zygote finds at /: put together once, below a directory of ours."""

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
                self.show(path)
        for name in ETC:
            self._copy_etc(name)
        for name in DEVICES:
            target = f"{directory}/dev/{name}"
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o666))
            mount(f"/dev/{name}", target, None, MS_BIND)
        for name, link in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            os.symlink(f"/proc/self/fd{link}", f"{directory}/dev/{name}")
        attach(detached(runtime, read_only=True), directory + RUNTIME)
        # The interpreter, where it is: it finds its library by its own path.
        for path in sorted({os.path.realpath(p) for p in (sys.base_prefix, sys.prefix)}):
            if not is_within(path, "/usr"):
                self.show(path)

    def show(self, path: str) -> None:
        """Have a directory of the host in the root, read-only; one that is not there is not."""
        if os.path.isdir(path):
            self.place(path)
            attach(detached(path, read_only=True), self.directory + path)

    def place(self, path: str) -> None:
        """Make an empty directory to mount on, as /tmp has none ready."""
        if not is_within(path, TMP):
            os.makedirs(self.directory + path, 0o755, exist_ok=True)

    def _copy_etc(self, name: str) -> None:
        source, target = f"/etc/{name}", f"{self.directory}/etc/{name}"
        try:
            mode = os.stat(source).st_mode
        except OSError:
            return  # not every host has every file
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        if stat.S_ISDIR(mode):
            os.mkdir(target, 0o755)
            attach(detached(source, read_only=True), target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
            attach(detached(source, read_only=True), target)

    def enter(self) -> None:
        """Take it for /, with a /proc of our own, and let go of what was / before."""
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
        # The new root on the old one, and the old one from under it: no directory is needed for it.
        _syscall("pivot_root", number, b".", b".")
        unmount(".")
        os.chdir("/")


class Box:
    """The namespaces that one worker lives in, and the init process that holds them."""

    def __init__(self, init: int, pidfd: int, ready: int) -> None:
        self.init = init
        self._pidfd = pidfd
        self._ready = ready

    def join(self) -> None:
        """Enter, in the worker that was forked into the pid namespace. Raises OSError."""
        # The init process says when all is there, or what is in the way.
        said = os.read(self._ready, 4096).decode(errors="replace")
        if said != "ready":
            raise OSError(said or "the init process of the box died")
        flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
        _check(_libc.setns(self._pidfd, flags), "setns")
        os.chdir("/")
        self.close()

    def close(self) -> None:
        """Close the descriptors that only `join` needs."""
        os.close(self._pidfd)
        os.close(self._ready)


def open_box(root: Root, own: int) -> Box:
    """Fork an init process into a new pid namespace; whom we fork next is in it as well.

    `own` is a descriptor of our own pid namespace: `close_box` takes us back to it. Raises OSError.
    """
    ready, say = os.pipe2(os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWPID)
        init = os.fork()
        if init == 0:
            _be_init(root, say)
        return Box(init, os.pidfd_open(init), ready)
    except OSError:
        os.close(ready)
        close_box(own)
        raise
    finally:
        os.close(say)


def close_box(own: int) -> None:
    """Have who is forked from here on in our own pid namespace again."""
    _check(_libc.setns(own, CLONE_NEWPID), "setns")


def _be_init(root: Root, say: int) -> None:
    """Be pid 1: make the namespaces, say so, and reap for ever."""
    try:
        os.setsid()
        processes.die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever becomes our child is reaped at once
        root.enter()
        os.write(say, b"ready")
        # Nothing of the zygote's: its socket's other end would seem to be alive with us.
        processes.close_from(0)
        # A sleep that ignores SIGCHLD reaps as well, and is a twentieth of what we are.
        for program in ("/bin/sleep", "/usr/bin/sleep"):
            try:
                os.execve(program, ["sleep", "2147483647"], {})  # noqa: S606 - no shell is needed
            except OSError:
                continue  # not there: then we do it ourselves
        while True:
            signal.pause()
    except BaseException as exc:  # noqa: BLE001 - nobody above will catch it
        os.write(say, str(exc).encode(errors="replace")[:4096])
    finally:
        os._exit(1)


def take_network_away() -> None:
    """Have no network but a loopback of our own (network_namespaces(7)). Raises OSError."""
    import fcntl  # noqa: PLC0415 - few functions ask for it
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

    By doing, in a forked child: everything that a zygote and a box do, and a look from inside.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, _try(directory, runtime, user=user).encode(errors="replace")[:1000])
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while piece := os.read(reader, 4096):
        said += piece
    os.close(reader)
    os.waitpid(pid, 0)
    return "" if said == b"holds" else said.decode(errors="replace") or "the probe died"


def _try(directory: str, runtime: str, *, user: bool) -> str:
    try:
        settle(user=user)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        box = open_box(Root(directory, runtime), own)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                box.join()
                status = 0 if os.getpid() == 2 and not os.path.exists("/sys/kernel") else 3  # noqa: PLR2004
            finally:
                os._exit(status)
        close_box(own)
        status = os.waitpid(pid, 0)[1]
        os.kill(box.init, signal.SIGKILL)
        os.waitpid(box.init, 0)
    except OSError as exc:
        return exc.strerror or str(exc)
    return "holds" if status == 0 else f"a box cannot be joined (status {status})"
