"""Leave in /tmp what whoever removes it may stumble over: links to the outside, FIFOs, depth.

What a link leads to is not there in a root directory of its own, and not to be opened under
Landlock. That the removal does not follow is for the test to see, which knows the file.
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
