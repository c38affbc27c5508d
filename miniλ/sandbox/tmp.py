"""The private /tmp of a worker as a directory whose size is polled.

Rule: a link that a worker left in its directory is never followed. All functions work by
descriptors and O_NOFOLLOW, and none recurses: a tree of any depth is removed (the tests: 2,000).
"""

from __future__ import annotations

import os

LONG_PATH = 2048  # bytes, half of PATH_MAX: one more name fits

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def used(path: str) -> int:
    """Return the bytes that are occupied on disk below `path`.

    A file with several names is counted once, directories are counted as well, and a file that is
    removed meanwhile counts 0.
    """
    total = 0
    linked: set[tuple[int, int]] = set()
    bases: list[int] = []
    # Paths are relative to an open directory, which changes after LONG_PATH bytes: a worker that
    # makes directories step by step makes paths longer than PATH_MAX, which open(2) refuses.
    stack: list[tuple[int | None, str]] = [(None, path)]
    try:
        while stack:
            base, relative = stack.pop()
            try:
                directory = os.open(relative, _DIRECTORY, dir_fd=base)
            except OSError:
                continue
            try:
                blocks, below = _list(directory, linked)
                total += blocks
                if below and len(os.fsencode(relative)) > LONG_PATH:
                    base, relative = os.dup(directory), "."
                    bases.append(base)
                stack += [(base, f"{relative}/{name}") for name in below]
            finally:
                os.close(directory)
    finally:
        for base in bases:
            os.close(base)
    # st_blocks is in units of 512 bytes on every file system (stat(2)).
    return total * 512


def _list(directory: int, linked: set[tuple[int, int]]) -> tuple[int, list[str]]:
    """Return the blocks of a directory's entries, and the names of the directories in it.

    `linked` are the files with several names that are counted already.
    """
    blocks, below = 0, []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif status.st_nlink > 1 and status.st_blocks:
                    if (status.st_dev, status.st_ino) in linked:
                        continue
                    linked.add((status.st_dev, status.st_ino))
                blocks += status.st_blocks
            except OSError:
                continue
    return blocks, below


def empty(path: str) -> None:
    """Remove everything below `path`, but not `path` itself. Raises OSError."""
    top = _open_top(path)
    # Directories that are moved up get names that a worker cannot have taken.
    prefix, moves = os.urandom(8).hex(), 0
    try:
        while names := os.listdir(top):
            for name in names:
                if not _unlink(name, top):
                    moves = _flatten(name, top, prefix, moves)
    finally:
        os.close(top)


def _open_top(path: str) -> int:
    """Open a worker's directory, from which the worker may have taken the permissions."""
    # By /proc: chmod(2) of the path would follow a link, and fchmod(2) refuses O_PATH.
    handle = os.open(path, os.O_PATH | _DIRECTORY)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", _DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Remove `path`, if it is still there, and everything below it. Raises OSError."""
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


def _flatten(name: str, top: int, prefix: str, moves: int) -> int:
    """Remove a directory: unlink its files, and move its directories up beside it, for `empty`.

    `moves` counts the directories that were moved: with `prefix` it makes their new names.
    """
    # The owner of a directory may change it, also without permissions on it.
    os.chmod(name, 0o700, dir_fd=top)
    child = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        for entry in os.listdir(child):
            if not _unlink(entry, child):
                moves += 1
                os.chmod(entry, 0o700, dir_fd=child)  # to move a directory one must write it
                os.rename(entry, f"{prefix}-{moves}", src_dir_fd=child, dst_dir_fd=top)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=top)
    return moves
