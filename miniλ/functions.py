"""This module is the functions of a supervisor: how they come, change, are published, and go.

Three places know a function: the registry what it is, the pool who runs it, and `live` which
version a name means right now. A change is in the registry before it is anywhere else.

States, as on Lambda: with `settle` a change is written down as Pending (or InProgress), answered,
and finished behind the answer; a supervisor that dies in between finishes it when it is opened
again. Without it the caller waits, and hears what is wrong as an exception. An update that
failed leaves the version that was there.

Rule: one change at a time, under `changing`. It is also what keeps a package that is on its way
into a function from being collected.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from miniλ import model, names, traces
from miniλ.background import Background
from miniλ.errors import (
    InvalidParameterValue,
    LambdaError,
    PreconditionFailed,
    ResourceConflict,
    ResourceNotFound,
    RuntimeMissing,
)
from miniλ.model import LATEST, FunctionConfiguration
from miniλ.runtimes import catalog
from miniλ.store import packages
from miniλ.store.archives import MAX_UNZIPPED
from miniλ.store.registry import Change
from miniλ.store.resources import (
    ALIAS,
    FUNCTION,
    LAYER,
    NUMBER,
    OF_FUNCTION,
    RECURSION,
    TAGS,
    Alias,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.journal import Journal
    from miniλ.pool.pool import Pool
    from miniλ.store.registry import Registry
    from miniλ.store.state_dir import StateDir

CREATING = ("Creating", "The function is being created.")
READY: dict[str, Any] = {
    "state": "Active",
    "state_reason": ("", ""),
    "update_status": "Successful",
    "update_reason": ("", ""),
}
# What two versions may differ in and still be the same: `publish_version` compares the rest.
_INCIDENTAL: dict[str, Any] = {
    "version": "",
    "revision": "",
    "description": "",
    "last_modified": "",
    "reserved_concurrency": None,
    **READY,
}


class Functions:
    """The functions of one supervisor."""

    def __init__(
        self,
        registry: Registry,
        pool: Pool,
        state: StateDir,
        place: names.Place,
        prepare: Callable[[FunctionConfiguration], Awaitable[None]],
        facts: Journal,
    ) -> None:
        """`prepare` gets ready for a function what a worker needs; it raises what is missing."""
        self.registry = registry
        self.place = place
        self.changing = asyncio.Lock()
        # What is invoked by a name (`hello`) or by a version (`hello:3`).
        self.live: dict[str, FunctionConfiguration] = {}
        self._pool = pool
        self._state = state
        self._prepare = prepare
        # Functions of the embedding app: they come and go with it, and are nobody's to change.
        self._transient: dict[str, FunctionConfiguration] = {}
        # A change that could not be written down: the next life finishes it.
        self._settling = Background(facts, "a change was not finished")

    def open(self) -> None:
        """Take up the functions that the registry has; finish what was not finished."""
        for name in self.registry.names(FUNCTION):
            for function in self.registry.parts(FUNCTION, name).values():
                if function.version == LATEST:
                    self._pool.reserve(name, function.reserved_concurrency)
                if function.state == "Pending" or function.update_status == "InProgress":
                    self._settle(function, None)
                elif function.state == "Active":
                    self._go_live(function)

    async def close(self) -> None:
        """Leave what is not finished for the next life."""
        await self._settling.cancel()

    def code_in_use(self) -> set[str]:
        """Return the packages that somebody has: versions, workers of old ones, layers."""
        used = self._pool.code_in_use()
        for name in self.registry.names(FUNCTION):
            for function in self.registry.parts(FUNCTION, name).values():
                used |= {function.code_path, function.layers_path}
        for name in self.registry.names(LAYER):
            used |= {layer.code_path for layer in self.registry.parts(LAYER, name).values()}
        return used

    # Look up

    def get(self, name: str, qualifier: str = "") -> FunctionConfiguration:
        """Return a version of a function by its name and version or alias.

        Raises `ResourceNotFound`.
        """
        version = qualifier or LATEST
        if not names.is_version(version):
            version = self.alias(name, version).version
        function = self.registry.get(FUNCTION, name, version)
        if function is None and version == LATEST:
            function = self._transient.get(name)
        if function is None:
            raise self._missing(name, qualifier)
        return function

    def all(self) -> list[FunctionConfiguration]:
        """Return $LATEST of every function, by name."""
        found = dict(self._transient)
        for name in self.registry.names(FUNCTION):
            found[name] = self.registry.parts(FUNCTION, name)[LATEST]
        return [found[name] for name in sorted(found)]

    def versions(self, name: str) -> list[FunctionConfiguration]:
        """Return all versions of a function, $LATEST first, then as they were published."""
        latest = self.get(name)
        parts = self.registry.parts(FUNCTION, name)
        numbers = sorted((version for version in parts if version != LATEST), key=int)
        return [latest, *(parts[number] for number in numbers)]

    def alias(self, name: str, alias: str) -> Alias:
        """Return an alias; raises `ResourceNotFound`."""
        found = self.registry.get(ALIAS, name, alias)
        if found is None:
            msg = f"Cannot find alias arn: {self.place.function(name, alias)}"
            raise ResourceNotFound(msg)
        return found

    def resolve(self, name: str, qualifier: str = "") -> FunctionConfiguration:
        """Return the version that an invocation is for; of two, what an alias' weights say.

        Raises `ResourceNotFound`, and `ResourceConflict` where it cannot run yet, or at all.
        """
        version = qualifier or LATEST
        alias = self.registry.get(ALIAS, name, version)
        if alias is not None:
            version = alias.version
            for other, weight in alias.weights.items():
                if random.random() < weight:  # noqa: S311 - a share of calls, no secret
                    version = other
        return self._invocable(name, version, qualifier)

    def check_invocable(self, name: str, qualifier: str = "") -> None:
        """Raise what `resolve` raises; which version of an alias runs is decided when it runs."""
        alias = self.registry.get(ALIAS, name, qualifier)
        self._invocable(name, qualifier or LATEST if alias is None else alias.version, qualifier)

    def _invocable(self, name: str, version: str, qualifier: str) -> FunctionConfiguration:
        function = self.live.get(name if version == LATEST else f"{name}:{version}")
        if function is not None:
            return function
        known = self.registry.get(FUNCTION, name, version)
        if known is None:
            raise self._missing(name, qualifier or LATEST)
        raise not_now(known.state)

    def traced(self, name: str, said: str | None, request_id: str) -> str:
        """Return the trace id that a function is given, by what its caller said of one.

        Raises `RecursiveInvocation` for a function that was in this chain too often.
        """
        config = self.registry.get(RECURSION, name)
        may_recur = config is not None and config["RecursiveLoop"] == "Allow"
        return traces.followed(traces.of(said, request_id), name, may_recur=may_recur)

    def _missing(self, name: str, qualifier: str) -> ResourceNotFound:
        model.check_name(name)
        return ResourceNotFound(f"Function not found: {self.place.function(name, qualifier)}")

    # Change

    async def create(
        self,
        draft: FunctionConfiguration,
        code: str | os.PathLike[str],
        *,
        settle: bool = False,
        publish: bool = False,
        tags: dict[str, str] | None = None,
    ) -> FunctionConfiguration:
        """Create a function of a draft, whose code is a directory or a .zip.

        `publish` makes version 1 of it at once, and returns that.
        """
        async with self.changing:
            self.check_new(draft.name)
            if not settle:
                await self._prepare(draft)
            function = with_package(draft, await self.publish_code(code))
            if function.layers:
                function = await self._with_layers(function)
            if settle:
                function = replace(function, state="Pending", state_reason=CREATING)
            first = replace(function, version="1", revision=new_revision()) if publish else None
            changes = [Change(FUNCTION, draft.name, LATEST, function)]
            if tags:
                changes.append(Change(TAGS, draft.name, "", tags))
            if first is not None:
                changes.append(Change(FUNCTION, draft.name, "1", first))
                changes.append(Change(NUMBER, draft.name, "", 1))
            await self.registry.write(*changes)
            for each in (function, first):
                if each is not None:
                    self._settle_or_live(each, None, settle=settle)
        return first or function

    async def update_code(
        self,
        name: str,
        code: str | os.PathLike[str],
        *,
        settle: bool = False,
        revision: str = "",
        dry_run: bool = False,
        **changes: Any,  # noqa: ANN401 - fields of FunctionConfiguration
    ) -> FunctionConfiguration:
        """Give a function new code. Invocations that run end on the old one."""
        async with self.changing:
            before = self._changeable(name, revision)
            package = await self.publish_code(code)
            function = with_package(_revised(before, **changes), package)
            if function.layers:
                await asyncio.to_thread(_check_unzipped, package.path, function.layers_path)
            if dry_run:
                return function
            if not settle:
                await self._prepare(function)
            return await self._update(before, function, settle=settle)

    async def update(
        self,
        name: str,
        changes: dict[str, Any],
        *,
        settle: bool = False,
        revision: str = "",
    ) -> FunctionConfiguration:
        """Change fields of a function's configuration; running invocations end as they began."""
        async with self.changing:
            before = self._changeable(name, revision)
            function = _revised(before, **changes)
            if function.layers != before.layers:
                function = await self._with_layers(function)
            if not settle:
                await self._prepare(function)
            return await self._update(before, function, settle=settle)

    async def _update(
        self, before: FunctionConfiguration, function: FunctionConfiguration, *, settle: bool
    ) -> FunctionConfiguration:
        status = {"update_status": "InProgress", "update_reason": CREATING}
        function = replace(function, **(status if settle else READY))
        await self.registry.write(Change(FUNCTION, function.name, LATEST, function))
        self._settle_or_live(function, before, settle=settle)
        return function

    async def reserve(self, name: str, limit: int | None) -> None:
        """Reserve concurrency for a function, or give it back; its workers stay."""
        async with self.changing:
            function = self.get(name)
            reserved = replace(function, reserved_concurrency=limit)
            reservable = self._pool.reservable(name)
            if (limit or 0) > reservable:
                raise over_reserved(limit or 0, reservable)
            await self.registry.write(Change(FUNCTION, name, LATEST, reserved))
            self._pool.reserve(name, limit)
            if name in self.live:
                self.live[name] = replace(self.live[name], reserved_concurrency=limit)

    async def delete(self, name: str, version: str = "") -> None:
        """Delete a function with all that belongs to it, or one version of it."""
        async with self.changing:
            function = self.get(name, version)
            if version:
                self._check_version_free(name, version)
                changes = [
                    Change(kind, name, version, None)
                    for kind in OF_FUNCTION
                    if version in self.registry.parts(kind, name)
                ]
                gone = [function]
            else:
                gone = self.versions(name)
                changes = [
                    Change(kind, name, part, None)
                    for kind in OF_FUNCTION
                    for part in self.registry.parts(kind, name)
                ]
            await self.registry.write(*changes)
            if not version:
                self._transient.pop(name, None)
                self._pool.reserve(name, None)
            for each in gone:
                if self.live.pop(each.qualified, None) is not None:
                    self._pool.withdraw(each)

    def _check_version_free(self, name: str, version: str) -> None:
        if version == LATEST:
            msg = "$LATEST version cannot be deleted without deleting the function."
            raise InvalidParameterValue(msg)
        if not version.isdecimal():
            msg = "Deletion of aliases is not currently supported."
            raise InvalidParameterValue(msg)
        users = [
            alias.name
            for alias in self.registry.parts(ALIAS, name).values()
            if version == alias.version or version in alias.weights
        ]
        if users:
            msg = f"Version {version} is in use by the aliases {', '.join(sorted(users))}"
            raise ResourceConflict(f"{msg}: point them to another version first")

    async def publish_version(
        self, name: str, *, description: str | None = None, sha256: str = "", revision: str = ""
    ) -> FunctionConfiguration:
        """Make a version of $LATEST as it is now; the last one, if nothing has changed since."""
        async with self.changing:
            latest = self._changeable(name, revision)
            if latest.state != "Active":
                raise not_now(latest.state)
            if sha256 and sha256 != latest.code_sha256:
                msg = (
                    f"CodeSHA256 ({sha256}) is different from current CodeSHA256 in $LATEST "
                    f"({latest.code_sha256}). Please try again with the CodeSHA256 in $LATEST."
                )
                raise InvalidParameterValue(msg)
            last = self.versions(name)[-1]
            if last.version != LATEST and _same(last, latest):
                return last
            number = (self.registry.get(NUMBER, name) or 0) + 1
            version = replace(
                latest,
                version=str(number),
                revision=new_revision(),
                description=latest.description if description is None else description,
                reserved_concurrency=None,
            )
            await self.registry.write(
                Change(FUNCTION, name, version.version, version), Change(NUMBER, name, "", number)
            )
            self._go_live(version)
        return version

    def adopt(self, function: FunctionConfiguration) -> None:
        """Take up a function of the embedding app."""
        self._transient[function.name] = function
        self._pool.reserve(function.name, function.reserved_concurrency)
        self._go_live(function)

    def check_new(self, name: str) -> None:
        """Refuse a name that is taken."""
        if name in self._transient or self.registry.get(FUNCTION, name, LATEST) is not None:
            msg = f"Function already exist: {name}"
            raise ResourceConflict(msg)

    def is_transient(self, name: str) -> bool:
        """Return whether a function is the embedding app's own."""
        return name in self._transient

    async def publish_code(self, code: str | os.PathLike[str]) -> packages.Package:
        """Bring code, of a function or a layer, into the store.

        Under `changing`, until somebody has it. Raises what `packages.publish` raises.
        """
        return await asyncio.to_thread(
            packages.publish,
            code,
            self._state.code,
            durable=self._state.kept,
            uploaded=os.path.dirname(code) == str(self._state.uploads),
        )

    async def _with_layers(self, function: FunctionConfiguration) -> FunctionConfiguration:
        """Return a function with all its layers in one directory."""
        path = await asyncio.to_thread(
            _put_together, function, self._state.code, durable=self._state.kept
        )
        return replace(function, layers_path=path)

    def _changeable(self, name: str, revision: str) -> FunctionConfiguration:
        """Return $LATEST of a function that may be changed now."""
        function = self.get(name)
        check_revision(revision, function.revision)
        if function.state == "Pending":
            raise not_now(function.state)
        if function.update_status == "InProgress":
            msg = (
                "The operation cannot be performed at this time. An update is in progress for "
                f"resource: {self.place.function(name)}"
            )
            raise ResourceConflict(msg)
        return function

    # Settle

    def _settle_or_live(
        self, function: FunctionConfiguration, before: FunctionConfiguration | None, *, settle: bool
    ) -> None:
        if settle:
            self._settle(function, before)
        else:
            self._go_live(function)

    def _go_live(self, function: FunctionConfiguration) -> None:
        if function.version == LATEST:
            self._pool.reserve(function.name, function.reserved_concurrency)
        self.live[function.qualified] = function
        self._pool.publish(function)

    def _settle(
        self, function: FunctionConfiguration, before: FunctionConfiguration | None
    ) -> None:
        self._settling.start(self._settled(function, before))

    async def _settled(
        self, function: FunctionConfiguration, before: FunctionConfiguration | None
    ) -> None:
        """Finish a change: Active or Successful, or Failed and why; `before` is then as it was."""
        try:
            await self._prepare(function)
            done = replace(function, **READY)
        except (LambdaError, OSError) as exc:
            is_runtime = isinstance(exc, RuntimeMissing) or function.runtime not in catalog.KNOWN
            code = "InvalidRuntime" if is_runtime else "InternalError"
            why = (code, str(exc))
            if before is None:
                done = replace(function, state="Failed", state_reason=why)
            else:
                done = replace(before, update_status="Failed", update_reason=why)
        async with self.changing:
            now = self.registry.get(FUNCTION, function.name, function.version)
            if now is None or now.revision != function.revision:
                return  # deleted meanwhile
            done = replace(done, reserved_concurrency=now.reserved_concurrency)
            await self.registry.write(Change(FUNCTION, function.name, function.version, done))
            if done.state == "Active" and done.update_status == "Successful":
                self._go_live(done)


def not_now(state: str) -> ResourceConflict:
    """Return the error for what a function in this state cannot do."""
    msg = "The operation cannot be performed at this time. The function is currently in the "
    return ResourceConflict(f"{msg}following state: {state}")


def new_revision() -> str:
    """Return a RevisionId."""
    return str(uuid.uuid4())


def check_revision(given: str | None, current: str) -> None:
    """Refuse a change that was made of something that is not the current state."""
    if given and given != current:
        msg = (
            "The Revision Id provided does not match the latest Revision Id. Call the "
            "GetFunction/GetAlias API to retrieve the latest Revision Id"
        )
        raise PreconditionFailed(msg)


def over_reserved(limit: int, reservable: int) -> InvalidParameterValue:
    """Return the error for more reserved concurrency than there is."""
    return InvalidParameterValue(
        f"ReservedConcurrentExecutions of {limit} would leave less than 1 for functions without; "
        f"{reservable} can be reserved"
    )


def with_package(
    function: FunctionConfiguration, package: packages.Package
) -> FunctionConfiguration:
    """Return a function with this code."""
    return replace(
        function, code_sha256=package.sha256, code_size=package.size, code_path=package.path
    )


def _put_together(function: FunctionConfiguration, store: Path, *, durable: bool) -> str:
    """Return the directory that all layers of a function are, the later over the earlier. Slow."""
    if not function.layers:
        return ""
    for layer in function.layers:
        # Its version may have been deleted since it was looked up.
        if not os.path.isdir(layer.path):
            msg = f"Layer version {layer.arn} does not exist."
            raise InvalidParameterValue(msg)
    paths = [Path(layer.path) for layer in function.layers]
    path = paths[0] if len(paths) == 1 else packages.merge(paths, store, durable=durable)
    _check_unzipped(function.code_path, str(path))
    return str(path)


def _check_unzipped(code: str, layers: str) -> None:
    """Refuse code and layers that are, together, larger than Lambda unpacks. Slow."""
    size = packages.unzipped_size(Path(code)) + packages.unzipped_size(Path(layers))
    if size > MAX_UNZIPPED:
        msg = (
            "Function code combined with layers exceeds the maximum allowed size of "
            f"{MAX_UNZIPPED} bytes. The actual size is {size} bytes."
        )
        raise InvalidParameterValue(msg)


def replace(function: FunctionConfiguration, **changes: Any) -> FunctionConfiguration:  # noqa: ANN401
    """Return a function with some fields changed; the same revision."""
    return msgspec.structs.replace(function, **changes)


def _revised(function: FunctionConfiguration, **changes: Any) -> FunctionConfiguration:  # noqa: ANN401
    return replace(function, revision=new_revision(), last_modified=model.now_iso(), **changes)


def _same(one: FunctionConfiguration, other: FunctionConfiguration) -> bool:
    return replace(one, **_INCIDENTAL) == replace(other, **_INCIDENTAL)
