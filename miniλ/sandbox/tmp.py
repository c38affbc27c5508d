"""This module is the private /tmp of a worker, as a directory whose size is watched.

Rule: whatever a worker left in its directory is never followed out of it. Everything here goes
by descriptors and O_NOFOLLOW, and nothing recurses: a tree 10,000 deep is removed like any other.
"""

from __future__ import annotations

import os

LONG_PATH = 2048

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def used(path: str) -> int:
    """Return the bytes that are occupied on disk below `path`; what vanishes meanwhile is 0.

    A file of several names is counted once, and directories are counted as well.
    """
    total = 0
    linked: set[tuple[int, int]] = set()
    bases: list[int] = []
    # Paths are relative to an open directory, a new one now and then: a name may be longer
    # than PATH_MAX if it is made step by step, and what cannot be named must still be counted.
    waiting: list[tuple[int | None, str]] = [(None, path)]
    try:
        while waiting:
            base, relative = waiting.pop()
            try:
                directory = os.open(relative, _DIRECTORY, dir_fd=base)
            except OSError:
                continue
            try:
                blocks, below = _look(directory, linked)
                total += blocks
                if below and len(relative) > LONG_PATH:
                    base, relative = os.dup(directory), "."
                    bases.append(base)
                waiting += [(base, f"{relative}/{name}") for name in below]
            finally:
                os.close(directory)
    finally:
        for base in bases:
            os.close(base)
    # st_blocks is in units of 512 bytes whatever the file system (stat(2)).
    return total * 512


def _look(directory: int, linked: set[tuple[int, int]]) -> tuple[int, list[str]]:
    """Return the blocks of a directory's entries, and the names of the directories in it.

    `linked` are the files that were counted already and have more names.
    """
    blocks, below = 0, []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif found.st_nlink > 1 and found.st_blocks:
                    if (found.st_dev, found.st_ino) in linked:
                        continue
                    linked.add((found.st_dev, found.st_ino))
                blocks += found.st_blocks
            except OSError:
                continue
    return blocks, below


def empty(path: str) -> None:
    """Remove everything below `path`, but not `path` itself."""
    os.chmod(path, 0o700)  # its owner may have locked himself out
    top = os.open(path, _DIRECTORY)
    # What is lifted gets names that a worker cannot have taken.
    prefix, lifted = os.urandom(8).hex(), 0
    try:
        while names := os.listdir(top):
            for name in names:
                if not _unlink(name, top):
                    lifted = _flatten(name, top, prefix, lifted)
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


def _flatten(name: str, top: int, prefix: str, lifted: int) -> int:
    """Empty a directory: files go, its directories are moved up beside it and wait their turn."""
    # A directory without permissions is still its owner's to change.
    os.chmod(name, 0o700, dir_fd=top)
    child = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        for entry in os.listdir(child):
            if not _unlink(entry, child):
                lifted += 1
                os.chmod(entry, 0o700, dir_fd=child)  # to move a directory one must write it
                os.rename(entry, f"{prefix}-{lifted}", src_dir_fd=child, dst_dir_fd=top)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=top)
    return lifted
