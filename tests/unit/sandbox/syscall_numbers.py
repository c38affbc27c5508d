"""Numbers of system calls and verdicts for the tests of the filter, apart from its own tables."""

from __future__ import annotations

import errno

MACHINES = ["x86_64", "aarch64"]


ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
EAFNOSUPPORT = 0x00050000 | errno.EAFNOSUPPORT

GARBAGE = 0xDEADBEEF << 32

# Number on x86_64, number on aarch64, from asm/unistd_64.h and asm-generic/unistd.h: repeated here,
# so that a wrong number in one table fails a test.
# fmt: off
PLAIN = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "init_module": (175, 105), "ioperm": (173, None), "iopl": (172, None),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "mbind": (237, 235), "migrate_pages": (256, 238),
    "modify_ldt": (154, None), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142),
    "request_key": (249, 218), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
}
ABSENT = {
    "clone3": (435, 435), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
}
CONDITIONAL = {
    "clone": (56, 220), "ioctl": (16, 29), "mknod": (133, None), "mknodat": (259, 33),
    "personality": (135, 92), "prlimit64": (302, 261), "socket": (41, 198),
}
ALLOWED = {
    "execve": (59, 221), "exit_group": (231, 94), "file_setattr": (469, 469), "futex": (202, 98),
    "get_mempolicy": (239, 236), "getpid": (39, 172), "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446), "mmap": (9, 222),
    "openat": (257, 56), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "prctl": (157, 167), "read": (0, 63), "rseq": (334, 293), "seccomp": (317, 277),
    "socketpair": (53, 199), "wait4": (61, 260), "write": (1, 64),
}
# fmt: on
NUMBERS = {**PLAIN, **ABSENT, **CONDITIONAL, **ALLOWED}


def numbers(table: dict[str, tuple[int | None, int | None]], machine: str) -> dict[str, int]:
    """Return the numbers of a table on a machine, without the names that it lacks."""
    column = MACHINES.index(machine)
    found = {name: pair[column] for name, pair in table.items()}
    return {name: number for name, number in found.items() if number is not None}
