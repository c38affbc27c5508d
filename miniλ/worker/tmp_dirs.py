"""Each worker's own /tmp and its Unix user: leased, and removed when given back.

A /tmp outlives its worker if that crashed or timed out: the replacement inherits it, as on Lambda,
and runs as the same user, which owns the files there.

With root a /tmp is a volume of exactly its size; in a user namespace the zygote mounts a tmpfs of
that size on its directory; else it is a directory whose size is polled at 2 Hz.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from miniλ.sandbox import namespaces, tmp

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.sandbox.users import Users
    from miniλ.sandbox.volumes import Volume, Volumes


class TmpDir:
    """One /tmp: `path` is its place on the host, `user` its owner (None: the supervisor's user)."""

    __slots__ = ("path", "user", "volume")

    def __init__(self, path: str, volume: Volume | None, user: int | None) -> None:
        self.path = path
        self.volume = volume
        self.user = user

    def open_mount(self) -> int | None:
        """Return a mount of a volume for the worker to attach; None for a directory."""
        if self.volume is None:
            return None
        return namespaces.clone_mount(self.path, read_only=False)


class TmpDirs:
    """Every /tmp of one supervisor, below its state directory."""

    def __init__(
        self,
        directory: str,
        volumes: Volumes | None,
        users: Users | None,
        release: Callable[[str], None],
    ) -> None:
        """`release` has the zygotes unmount a directory that will not be used again."""
        self._directory = directory
        self._volumes = volumes
        self._users = users
        self._release = release

    async def lease(self, worker_id: str, size_mb: int, *, own_user: bool) -> TmpDir:
        """Return an empty /tmp of this size; raises OSError if the host cannot make one.

        `own_user`: owned by a user of its own, if workers have users of their own here.
        """
        user = self._users.lease() if self._users is not None and own_user else None
        try:
            if self._volumes is None:
                path = os.path.join(self._directory, worker_id)
                os.mkdir(path, 0o700)
                return TmpDir(path, None, user)
            volume = self._volumes.spare(size_mb)
            if volume is None:
                volume = await asyncio.to_thread(self._volumes.lease, size_mb)
        except BaseException:
            if self._users is not None and user is not None:
                self._users.give_back(user)
            raise
        return TmpDir(volume.path, volume, user)

    async def give_back(self, tmp_dir: TmpDir) -> None:
        """Remove a /tmp with all that is in it, and give its user back. Raises OSError."""
        try:
            await self._remove(tmp_dir)
        finally:
            if self._users is not None and tmp_dir.user is not None:
                self._users.give_back(tmp_dir.user)

    async def _remove(self, tmp_dir: TmpDir) -> None:
        if self._volumes is not None and tmp_dir.volume is not None:
            await asyncio.to_thread(self._volumes.give_back, tmp_dir.volume)
            return
        self._release(tmp_dir.path)
        await asyncio.to_thread(tmp.remove, tmp_dir.path)

    async def make_ahead(self, size_mb: int) -> None:
        """Make spare volumes of this size, if there are volumes."""
        if self._volumes is not None:
            await asyncio.to_thread(_fill, self._volumes, size_mb)


def _fill(volumes: Volumes, size_mb: int) -> None:
    try:
        while volumes.make_ahead(size_mb):
            pass
    except OSError:
        return  # no room for a spare: the next lease raises why
