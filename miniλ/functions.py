"""The control plane: functions are created, changed, published, provisioned and deleted.

Three places know a function: the registry has its configuration, the pool its workers, and `live`
the version that a name stands for at this moment. A change is in the registry before it is in the
other two.

States, as on Lambda: with `settle` a change is written as Pending (or InProgress), answered, and
finished after the answer; if the supervisor dies in between, the next one finishes it when it
opens. Without `settle` the caller waits, and an error is an exception. An update that failed
leaves the version that was there.

Rule 1: one change at a time, under `changing`, from the first read to the write; `provision` alone
takes no lock, since it awaits nothing. A caller passes what is to change, never a configuration
that it has read.

Rule 2: the lock also keeps a package that is on its way into a function from being collected.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from miniλ import model, names, traces
from miniλ.background import Background
from miniλ.errors import (
    InvalidParameterValue,
    LambdaError,
    ResourceConflict,
    ResourceNotFound,
    RuntimeMissing,
)
from miniλ.journal import Trouble
from miniλ.model import LATEST, new_revision
from miniλ.revisions import (
    READY,
    are_same,
    as_version,
    check_revision,
    next_revision,
    replace,
    with_package,
)
from miniλ.runtimes import catalog
from miniλ.store.registry import Change
from miniλ.store.resources import (
    ALIAS,
    FUNCTION,
    LAYER,
    NUMBER,
    OF_FUNCTION,
    PROVISIONED,
    RECURSION,
    TAGS,
    Alias,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping

    from miniλ.code_store import CodeStore
    from miniλ.journal import Journal
    from miniλ.model import FunctionConfiguration, FunctionDraft
    from miniλ.pool.pool import Pool
    from miniλ.store.packages import Package, Upload
    from miniλ.store.registry import Registry

CREATING = ("Creating", "The function is being created.")


class Functions:
    """The functions of one supervisor."""

    def __init__(
        self,
        registry: Registry,
        pool: Pool,
        code: CodeStore,
        place: names.Place,
        prepare: Callable[[FunctionDraft], Awaitable[None]],
        facts: Journal,
    ) -> None:
        """`prepare` makes what a worker of a function needs, or raises the reason it cannot."""
        self.registry = registry
        self.place = place
        self.changing = asyncio.Lock()
        # By the name that is invoked: `hello` for $LATEST, `hello:3` for a version.
        self.live: dict[str, FunctionConfiguration] = {}
        self._pool = pool
        self._code = code
        self._prepare = prepare
        self._journal = facts
        # Functions of the embedding app: they are in no registry, and end with the app.
        self._transient: dict[str, FunctionConfiguration] = {}
        # If a change cannot be written, `open` of the next supervisor finishes it.
        self._settling = Background(facts, "A change is not finished; the next start finishes it")

    async def open(self) -> None:
        """Load the registry: make functions live, finish changes, provision concurrency."""
        await self._code.collect(self.code_in_use())
        for name in self.registry.names(FUNCTION):
            for function in self.registry.parts(FUNCTION, name).values():
                if function.version == LATEST:
                    self._pool.reserve(name, function.reserved_concurrency)
                if function.state == "Pending" or function.update_status == "InProgress":
                    self._settle(function, None)
                elif function.state == "Active":
                    self._go_live(function)
        for name in self.registry.names(PROVISIONED):
            for qualifier, config in self.registry.parts(PROVISIONED, name).items():
                try:
                    self.provision(name, qualifier, config["Requested"])
                except LambdaError as exc:
                    what = f"No provisioned concurrency for {name}:{qualifier}: {exc}"
                    self._journal.record(Trouble(what=what))

    async def close(self) -> None:
        """Cancel the changes that are not finished; the next supervisor finishes them."""
        await self._settling.cancel()

    def code_in_use(self) -> set[str]:
        """Return the packages of all versions, of workers of old versions, and of layers."""
        used = self._pool.code_in_use()
        for name in self.registry.names(FUNCTION):
            for function in self.registry.parts(FUNCTION, name).values():
                used |= {function.code_path, function.layers_path}
        for name in self.registry.names(LAYER):
            used |= {layer.code_path for layer in self.registry.parts(LAYER, name).values()}
        return used

    async def collect_code(self) -> None:
        """Remove the packages that are not in use; no function changes meanwhile (rule 2)."""
        async with self.changing:
            await self._code.collect(self.code_in_use())

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
        functions = dict(self._transient)
        for name in self.registry.names(FUNCTION):
            functions[name] = self.registry.parts(FUNCTION, name)[LATEST]
        return [functions[name] for name in sorted(functions)]

    def versions(self, name: str) -> list[FunctionConfiguration]:
        """Return all versions of a function, $LATEST first, then as they were published."""
        latest = self.get(name)
        parts = self.registry.parts(FUNCTION, name)
        numbers = sorted((version for version in parts if version != LATEST), key=int)
        return [latest, *(parts[number] for number in numbers)]

    def alias(self, name: str, alias: str) -> Alias:
        """Return an alias; raises `ResourceNotFound`."""
        config = self.registry.get(ALIAS, name, alias)
        if config is None:
            msg = f"Cannot find alias arn: {self.place.function(name, alias)}"
            raise ResourceNotFound(msg)
        return config

    def resolve(self, name: str, qualifier: str = "") -> FunctionConfiguration:
        """Return the version that an invocation runs; an alias of two draws one by its weights.

        Raises `ResourceNotFound`, and `ResourceConflict` for a version that is not active.
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
        """Raise what `resolve` raises, and draw no version: an alias is drawn when it runs."""
        alias = self.registry.get(ALIAS, name, qualifier)
        self._invocable(name, qualifier or LATEST if alias is None else alias.version, qualifier)

    def _invocable(self, name: str, version: str, qualifier: str) -> FunctionConfiguration:
        function = self.live.get(name if version == LATEST else f"{name}:{version}")
        if function is not None:
            return function
        dormant = self.registry.get(FUNCTION, name, version)
        if dormant is None:
            raise self._missing(name, qualifier or LATEST)
        raise not_now(dormant.state)

    def extend_trace(self, name: str, trace_id: str | None, request_id: str) -> str:
        """Return the trace id that a function gets, made from the caller's if it sent one.

        Raises `RecursiveInvocation` for a function that was in this chain too often.
        """
        config = self.registry.get(RECURSION, name)
        may_recur = config is not None and config["RecursiveLoop"] == "Allow"
        return traces.extend_lineage(traces.of(trace_id, request_id), name, may_recur=may_recur)

    def _missing(self, name: str, qualifier: str) -> ResourceNotFound:
        model.check_name(name)
        return ResourceNotFound(f"Function not found: {self.place.function(name, qualifier)}")

    # Change

    async def create(
        self,
        draft: FunctionDraft,
        code: str | os.PathLike[str] | Upload,
        *,
        settle: bool = False,
        publish: bool = False,
        tags: dict[str, str] | None = None,
    ) -> FunctionConfiguration:
        """Create a function from a draft and its code: a directory or a .zip.

        With `publish`, version 1 is made in the same step, and returned.
        """
        async with self.changing:
            self.check_new(draft.name)
            if not settle:
                await self._prepare(draft)
            function = with_package(draft, await self._code.publish(code))
            if function.layers:
                function = await self._code.with_layers(function)
            if settle:
                function = replace(function, state="Pending", state_reason=CREATING)
            first = replace(function, version="1", revision=new_revision()) if publish else None
            changes = [Change(FUNCTION, draft.name, LATEST, function)]
            if tags:
                changes.append(Change(TAGS, draft.name, "", tags))
            if first is not None:
                changes.append(Change(FUNCTION, draft.name, "1", first))
                changes.append(Change(NUMBER, draft.name, "", 1))

            def apply() -> None:
                for each in (function, first):
                    if each is not None:
                        self._settle_or_live(each, None, settle=settle)

            await self.registry.write(*changes, then=apply)
        return first or function

    async def update_code(
        self,
        name: str,
        code: str | os.PathLike[str] | Upload,
        changes: Mapping[str, Any] | None = None,
        *,
        settle: bool = False,
        publish: bool = False,
        revision: str = "",
        dry_run: bool = False,
    ) -> FunctionConfiguration:
        """Give a function new code, and change fields; running invocations end on the old code.

        With `publish`, a version of it is made in the same step, and returned.
        """
        async with self.changing:
            before = self._changeable(name, revision)
            package = await self._code.publish(code)
            function = with_package(next_revision(before, changes or {}), package)
            if function.layers:
                await self._code.check_unzipped(package.path, function.layers_path)
            if dry_run:
                return function
            if not settle:
                await self._prepare(function)
            return await self._update(before, function, settle=settle, publish=publish)

    async def update(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        settle: bool = False,
        revision: str = "",
        check: Callable[[FunctionConfiguration], None] | None = None,
    ) -> FunctionConfiguration:
        """Change fields of a function's configuration; running invocations end as they began.

        Members of `passthrough` are merged into those that the function has. `check` gets the new
        configuration before anything is written, and may raise.
        """
        async with self.changing:
            before = self._changeable(name, revision)
            function = next_revision(before, changes)
            if check is not None:
                check(function)
            if function.layers != before.layers:
                function = await self._code.with_layers(function)
            if not settle:
                await self._prepare(function)
            return await self._update(before, function, settle=settle)

    async def _update(
        self,
        before: FunctionConfiguration,
        function: FunctionConfiguration,
        *,
        settle: bool,
        publish: bool = False,
    ) -> FunctionConfiguration:
        """Write an update, and the version that is published with it, all or none of both."""
        assert not (settle and publish), "the version would stay InProgress: only $LATEST settles"
        status = {"update_status": "InProgress", "update_reason": CREATING}
        function = replace(function, **(status if settle else READY))
        version, published = self._next_version(function) if publish else (function, [])

        def apply() -> None:
            self._settle_or_live(function, before, settle=settle)
            if published:
                self._go_live(version)

        latest = Change(FUNCTION, function.name, LATEST, function)
        await self.registry.write(latest, *published, then=apply)
        return version

    async def reserve(self, name: str, limit: int | None) -> None:
        """Reserve concurrency for a function; None removes the reservation. Its workers stay."""
        async with self.changing:
            function = self.get(name)
            configs = self.registry.parts(PROVISIONED, name).values()
            provisioned = sum(config["Requested"] for config in configs)
            if limit is not None and limit < provisioned:
                msg = (
                    f"ReservedConcurrentExecutions {limit} should not be lower than function's "
                    f"total provisioned concurrency [{provisioned}]."
                )
                raise InvalidParameterValue(msg)
            reserved = replace(function, reserved_concurrency=limit)
            reservable = self._pool.reservable(name)
            if (limit or 0) > reservable:
                raise over_reserved(limit or 0, reservable)

            def apply() -> None:
                self._pool.reserve(name, limit)
                if name in self.live:
                    self.live[name] = replace(self.live[name], reserved_concurrency=limit)

            await self.registry.write(Change(FUNCTION, name, LATEST, reserved), then=apply)

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
                deleted = [function]
            else:
                deleted = self.versions(name)
                changes = [
                    Change(kind, name, part, None)
                    for kind in OF_FUNCTION
                    for part in self.registry.parts(kind, name)
                ]

            def apply() -> None:
                if not version:
                    self._transient.pop(name, None)
                    self._pool.reserve(name, None)
                for each in deleted:
                    if self.live.pop(each.qualified, None) is not None:
                        self._pool.withdraw(each)

            await self.registry.write(*changes, then=apply)

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
        """Make a version of $LATEST; if nothing has changed since the last one, return that."""
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
            version, changes = self._next_version(latest, description)
            if changes:
                await self.registry.write(*changes, then=lambda: self._go_live(version))
        return version

    def _next_version(
        self, latest: FunctionConfiguration, description: str | None = None
    ) -> tuple[FunctionConfiguration, list[Change]]:
        """Return the version that $LATEST is, and the changes that write it.

        If nothing has changed since the last version, that one, and no changes.
        """
        name = latest.name
        last = self.versions(name)[-1]
        if last.version != LATEST and are_same(last, latest):
            return last, []
        number = (self.registry.get(NUMBER, name) or 0) + 1
        version = as_version(latest, number, description)
        return version, [
            Change(FUNCTION, name, version.version, version),
            Change(NUMBER, name, "", number),
        ]

    async def adopt(self, function: FunctionConfiguration) -> None:
        """Take up a function of the embedding app; it replaces one that the app had before."""
        async with self.changing:
            if function.name not in self._transient:
                self.check_new(function.name)
            await self._prepare(function)
            # Not in the registry: it comes and goes with the app.
            self._transient[function.name] = function
            self._pool.reserve(function.name, function.reserved_concurrency)
            self._go_live(function)

    def check_new(self, name: str) -> None:
        """Refuse a name that is taken."""
        if name in self._transient or self.registry.get(FUNCTION, name, LATEST) is not None:
            msg = f"Function already exist: {name}"
            raise ResourceConflict(msg)

    async def publish_code(self, code: str | os.PathLike[str] | Upload) -> Package:
        """Bring the code of a layer into the store; hold `changing` until the layer is written.

        Raises what `packages.publish` raises.
        """
        return await self._code.publish(code)

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

    # Provisioned concurrency

    @property
    def capacity(self) -> int:
        """How many invocations may run at once, all functions together."""
        return self._pool.capacity

    @property
    def unreserved(self) -> int:
        """The part of the capacity that functions without reserved concurrency share."""
        return self._pool.reservable("") + 1

    def provision(self, name: str, qualifier: str, count: int) -> None:
        """Keep `count` workers of a version initialised; 0 ends it. Raises as `check_provision`."""
        self.check_provision(name, qualifier, count)
        self._pool.provision(self.resolve(name, qualifier), count)

    def check_provision(self, name: str, qualifier: str, count: int, freed: int = 0) -> None:
        """Refuse to provision more workers than the host runs, as `InvalidParameterValue`.

        `freed` are workers of another version that are given up for these.
        """
        most = self._pool.provisionable(self.resolve(name, qualifier)) + freed
        if count > most:
            msg = (
                f"ProvisionedConcurrentExecutions of {count} is more than the {most} that are left"
            )
            raise InvalidParameterValue(msg)

    def provisioned(self, name: str, qualifier: str) -> tuple[int, str]:
        """Return how many workers are initialised, and why no more are ("" while all is well)."""
        return self._pool.provisioned_ready(self.resolve(name, qualifier))

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
        self._settling.start(self._finish_change(function, before))

    async def _finish_change(
        self, function: FunctionConfiguration, before: FunctionConfiguration | None
    ) -> None:
        """Finish a change: write it as Active and Successful, or as Failed with the reason.

        An update that failed leaves the configuration `before`.
        """
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

            def apply() -> None:
                if done.state == "Active" and done.update_status == "Successful":
                    self._go_live(done)

            change = Change(FUNCTION, function.name, function.version, done)
            await self.registry.write(change, then=apply)


def not_now(state: str) -> ResourceConflict:
    """Return the error for an operation that a function in this state does not allow."""
    msg = "The operation cannot be performed at this time. The function is currently in the "
    return ResourceConflict(f"{msg}following state: {state}")


def over_reserved(limit: int, reservable: int) -> InvalidParameterValue:
    """Return the error for more reserved concurrency than there is."""
    return InvalidParameterValue(
        f"ReservedConcurrentExecutions of {limit} would leave less than 1 for functions without; "
        f"{reservable} can be reserved"
    )
