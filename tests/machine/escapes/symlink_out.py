"""Leave in /tmp what is hard to remove: links to the outside, FIFOs, sockets, depth.

In a root directory of its own the targets of the links do not exist, and under Landlock they cannot
be opened. The test, which has the targets, checks that the removal does not follow the links.
"""

import os
import socket
import tempfile

from linux import first, read

DEPTH = 600


def handler(event: dict, context: object) -> dict:
    base = os.path.join(tempfile.gettempdir(), "mess")
    if not os.path.isdir(base):
        _make(base, event["host_directory"], event["host_file"])
    return first(
        lambda: read(os.path.join(base, "file")),
        lambda: os.listdir(os.path.join(base, "directory")),
    )


def _make(base: str, directory: str, file: str) -> None:
    os.mkdir(base)
    os.symlink(file, os.path.join(base, "file"))
    os.symlink(directory, os.path.join(base, "directory"))
    os.symlink("/", os.path.join(base, "root"))
    os.symlink("..", os.path.join(base, "up"))
    os.mkfifo(os.path.join(base, "fifo"))
    here = os.open(".", os.O_RDONLY)
    os.chdir(base)
    with socket.socket(socket.AF_UNIX) as any_socket:
        any_socket.bind("socket")
    for _ in range(DEPTH):
        os.mkdir("deep-" + "x" * 40)
        os.chdir("deep-" + "x" * 40)
    os.mkdir("locked")
    os.mkdir("locked/inside")
    os.chmod("locked", 0)
    os.fchdir(here)
    os.close(here)
