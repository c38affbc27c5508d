"""This module is the private /tmp of a worker, as a directory whose size is watched.

Rule: whatever a worker left in its directory is never followed out of it. Everything here goes
by descriptors and O_NOFOLLOW, and nothing recurses: a tree 10,000 deep is removed like any other.
"""

from __future__ import annotations

import os

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def used(path: str) -> int:
    """Return the bytes that files below `path` occupy on disk; what vanishes meanwhile is 0."""
    total = 0
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        # st_blocks is in units of 512 bytes whatever the file system (stat(2)).
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total


def empty(path: str) -> None:
    """Remove everything below `path`, but not `path` itself."""
    top = os.open(path, _DIRECTORY)
    try:
        lifted = 0
        while names := os.listdir(top):
            for name in names:
                if _unlink(name, top):
                    continue
                lifted = _flatten(name, top, lifted)
    finally:
        os.close(top)


def remove(path: str) -> None:
    """Remove `path` and everything below it; a path that is gone already is fine."""
    try:
        empty(path)
        os.rmdir(path)
    except FileNotFoundError:
        return


def _unlink(name: str, directory: int) -> bool:
    """Remove a file, or a directory if it is empty; return whether it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        pass
    else:
        return True
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _flatten(name: str, top: int, lifted: int) -> int:
    """Empty a directory: files go, its directories are moved up beside it and wait their turn."""
    # A directory without permissions is still its owner's to change.
    os.chmod(name, 0o700, dir_fd=top)
    child = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        for entry in os.listdir(child):
            if not _unlink(entry, child):
                lifted += 1
                os.chmod(entry, 0o700, dir_fd=child)  # to move a directory one must write it
                os.rename(entry, f".lifted-{lifted}", src_dir_fd=child, dst_dir_fd=top)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=top)
    return lifted
