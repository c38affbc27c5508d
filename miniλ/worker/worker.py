"""This module is one worker: its table of states, init, invoke, freeze, kill.

Theory of operation: `live` is a worker's whole life in one coroutine, owned by the pool: it
leases a cgroup and a /tmp, has the zygote fork, waits for the end and returns what it leased.
Everything in between is driven by callbacks of the event loop (a frame, a deadline, a pidfd),
because a warm invocation must not cost a task switch. An invocation belongs to the worker and
not to who waits for it: a caller who leaves does not stop the function, as on Lambda.

Rule 1: liveness is the pidfd, never an EOF. A grandchild may hold every pipe open.

Rule 2: whatever ends an invocation goes through `_complete`, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, TypeAlias

from miniλ import billing, failures, journal
from miniλ.errors import LambdaError, ResourceConflict, ServiceError, SupervisorClosed
from miniλ.failures import ANSWERED, FAILED
from miniλ.model import MB, Invoked, Response
from miniλ.worker import log_pipe, wire
from miniλ.worker.answer_stream import MAX_STREAM, AnswerStream
from miniλ.worker.channel import Channel
from miniλ.worker.equipment import (
    MB_PER_CPU,
    NO_CONTEXT,
    PROCESSES,
    Equipment,
    InitResult,
    InvocationContext,
    WorkerGone,
)
from miniλ.worker.lifecycle import TRANSITIONS
from miniλ.worker.process_tree import BURIAL_TIMEOUT, ProcessTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.concurrency import Concurrency
    from miniλ.failures import Outcome
    from miniλ.model import FunctionConfiguration
    from miniλ.worker.lifecycle import State
    from miniλ.worker.tmp_dirs import TmpDir
    from miniλ.worker.zygote import Exit

    # Future, init phase that was waited for, seconds spent and log before.
    _Call: TypeAlias = tuple[asyncio.Future[Response], "InitResult | None", float, bytes]

# After the answer pipe breaks the exit status is on its way: it says more than the break.
BROKEN_GRACE = 0.2
# A worker whose last invocation was as short as this is woken on the supervisor's own core, which
# saves 30 us. Were the handler to work for long, the loop would wait for a tick of the kernel's.
SHORT = 0.001
# The peak of the memory is read at most this often: many short invocations have one.
MEASURE_SECONDS = 0.001


class Worker:
    """One live process that runs one version of one function, one invocation at a time."""

    # Not a dict: with more than 30 attributes CPython looks each of them up by its hash.
    # fmt: off
    __slots__ = (
        "_affinity",
        "_call",
        "_channel",
        "_cpus",
        "_deadline",
        "_early",
        "_group",
        "_init_timeout",
        "_log",
        "_loop",
        "_measured",
        "_memory_limit",
        "_oom_kills",
        "_phase",
        "_record",
        "_released",
        "_request_id",
        "_stream",
        "_timer",
        "_tree",
        "book",
        "ended_by",
        "equipment",
        "function",
        "idle_since",
        "initialised",
        "invocations",
        "keeps_tmp",
        "limits",
        "outlived",
        "peak",
        "pid",
        "reported_rss",
        "share",
        "started",
        "state",
        "story",
        "tmp_dir",
        "worker_id",
    )
    # fmt: on

    def __init__(
        self,
        equipment: Equipment,
        function: FunctionConfiguration,
        released: Callable[[Worker], None],
        init_timeout: float,
        phase: str = "init",
    ) -> None:
        """Make a worker that has not started. `phase` is "invoke" for an init that is repeated.

        `released` is called when an invocation is over, in the turn before its caller goes on.
        """
        self.equipment = equipment
        self.function = function
        self._record = equipment.journal.record
        self._released = released
        self.book = billing.BOOKS[equipment.settings.price_book]
        self._init_timeout = init_timeout
        self._phase = phase
        # The instance's id leads, so that what a dead supervisor left can be found by it.
        self.worker_id = equipment.instance + os.urandom(16).hex()[: 32 - len(equipment.instance)]
        self.state: State = "starting"
        self.story: list[str] = []
        self.invocations = 0
        self.idle_since = 0.0
        self.pid = 0
        # What the worker says of itself, and what the poll saw of its tree: in bytes.
        self.reported_rss = 0
        self.peak = 0
        # Set by whoever ends the worker: what the next failure of it is to say.
        self.ended_by = ""
        self.keeps_tmp = False
        # What its invocation takes from: see `shares`. The pool sets it.
        self.share: Concurrency
        # Its own /tmp. The pool sets it before the start if one survived a crash.
        self.tmp_dir: TmpDir | None = None
        self.limits = equipment.limits_of(function)
        self._loop = asyncio.get_running_loop()
        self.initialised: asyncio.Future[InitResult] = self._loop.create_future()
        self._tree = ProcessTree(self, self._record)
        # Done when a process has outlived its SIGKILL: in D state, on a file system that hangs.
        # `live` waits for its end all the same; whoever else waits for this worker may stop.
        self.outlived = self._tree.outlived
        # The invocation in flight: see `invoke`.
        self._call: _Call | None = None
        self._request_id = ""
        self.started = 0.0
        self._deadline = 0.0
        self._measured = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._oom_kills = 0
        self._cpus = function.memory_size / MB_PER_CPU
        self._affinity = equipment.affinity
        self._memory_limit = function.memory_size * MB
        self._group = self._tree.group
        # A worker may be quicker than the zygote's word that it exists: what it says first.
        self._early: list[tuple[wire.FromWorker, bytes]] = []

    def __repr__(self) -> str:
        name = f"{self.worker_id[-8:]} {self.function.name}"
        return f"<Worker {name} {self.state}, {self.invocations} invocations>"

    def _move(self, fact: str) -> None:
        try:
            self.state = TRANSITIONS[self.state][fact]
        except KeyError:
            msg = f"{self!r} cannot be {fact}; its story: {' '.join(self.story)}"
            raise AssertionError(msg) from None
        self.story.append(fact)

    # Life

    async def live(self) -> None:
        """Be a worker from the fork to the last process. Raises LambdaError if it cannot start.

        An init phase that fails is not an error: `initialised` says how it went.
        """
        try:
            async with contextlib.AsyncExitStack() as undo:
                await self._start(undo)
                # Shielded: a cancelled task would cancel the future, and that reads as an exit.
                await asyncio.shield(self._tree.gone)
        except asyncio.CancelledError:
            if not self.initialised.done():
                self.cannot_start(SupervisorClosed())
            raise
        except OSError as exc:
            msg = f"A worker of {self.function.name} cannot start: {exc}"
            self.cannot_start(ServiceError(msg))
        except LambdaError as exc:
            self.cannot_start(exc)

    def cannot_start(self, error: LambdaError) -> None:
        """Tell who waits for the init phase that there is none."""
        if self.initialised.done():
            self._record(journal.Trouble(what=f"{self!r}: {error}"))
        else:
            self.initialised.set_exception(error)
            self.initialised.exception()  # asyncio is content; who waits hears it as well

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        function, equipment = self.function, self.equipment
        if not os.path.isdir(function.code_path):  # noqa: ASYNC240 - one stat, on a local disk
            msg = (
                f"The code of function {function.name} is gone from {function.code_path}: "
                "it was deleted while in use. Deploy it again with update_function_code"
            )
            raise ResourceConflict(msg)
        zygote = equipment.zygotes.running(function.runtime)
        if zygote is None:
            zygote = await equipment.zygotes.get(function.runtime)
        group = self._group = self._tree.group = equipment.hierarchy.lease(self.worker_id)
        undo.callback(equipment.hierarchy.give_back, group)
        self._oom_kills = group.oom_kills()
        group.limit(self._memory_limit, PROCESSES)
        # The init phase has all the CPU there is; the quota comes when the worker is ready.
        # An init that is repeated is inside an invocation, and has the invocation's share.
        group.throttle(None if self._phase == "init" else self._cpus)
        if self.tmp_dir is None:
            # What an app imports its functions from may be readable for the app's user only.
            own_user = not function.python_path
            self.tmp_dir = await equipment.tmp_dirs.lease(
                self.worker_id, function.ephemeral_storage, own_user=own_user
            )
        undo.push_async_callback(self._return_tmp_dir)

        request, our_request = os.pipe2(os.O_CLOEXEC)
        our_answer, answer = os.pipe2(os.O_CLOEXEC)
        our_log, log = os.pipe2(os.O_CLOEXEC)
        self._channel = Channel(
            self._loop, our_request, our_answer, self._on_frame, self._on_broken
        )
        undo.callback(self._channel.close)
        self._log = log_pipe.LogPipe(self._loop, our_log, equipment.settings.log_bytes)
        undo.callback(self._log.close)
        # The init phase is the worker's: what it is given is ours to have ready.
        started = time.monotonic()
        # Written before the worker exists: it finds its name when it first looks.
        self._channel.send(
            equipment.introduction(function, self.worker_id, zygote.program, self.tmp_dir.path)
        )
        given = [request, answer, log]
        try:
            volume = self.tmp_dir.open_mount() if equipment.choice.isolation.namespaces else None
            if volume is not None:
                given.append(volume)
            sandbox = self.equipment.sandbox(
                function, self.worker_id, group.key, self.tmp_dir.path, self.tmp_dir.user
            )
            forked = await zygote.fork(sandbox, given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        self.pid = forked.pid
        self._tree.take(forked.pid, forked.pidfd, self._on_exit)
        forked.exited.add_done_callback(self._on_reaped)
        self.started = started
        undo.callback(self._tree.close)
        # Last in, first out: the processes go before what they used.
        undo.push_async_callback(self._bury, forked.exited)
        equipment.journal.record(
            journal.WorkerStarted(worker_id=self.worker_id, function=function.name, pid=forked.pid)
        )
        self._timer = self._loop.call_at(
            self._loop.time() + self._init_timeout - (time.monotonic() - started),
            self._init_late,
        )
        for frame in self._early:
            self._on_frame(*frame)

    async def _bury(self, exited: asyncio.Future[Exit | None]) -> None:
        """See to it that no process is left, and say how the first one ended.

        What does not die while the supervisor closes is left: it has its SIGKILL.
        """
        tree = self._tree
        if self.state != "gone" and not tree.gone.done():
            # We are here before the process is: cancelled, or a step after the fork failed.
            self.kill("the supervisor closed")
            await tree.first_ended()
        tree.look_away()
        self._cancel_timer()
        exit_: Exit | None = None
        if tree.gone.done():
            with contextlib.suppress(TimeoutError):
                exit_ = await asyncio.wait_for(asyncio.shield(exited), BURIAL_TIMEOUT)
        # An answer that was written before the exit counts.
        self._channel.receive()
        cause = "the zygote died" if exit_ is None else failures.describe_status(exit_.status)
        oom = self._group.oom_kills() > self._oom_kills
        if self.state != "gone":
            self._move("exited")
        if not self.initialised.done():
            kind, text = self._verdict(exit_)
            self._init_failed("error", failures.failure_body(kind, f"Error: {text}"), kind)
        if self._call is not None:
            self._complete_exited(exit_, oom=oom)
        if await tree.end():
            self._record(
                journal.WorkerExited(
                    worker_id=self.worker_id, function=self.function.name, cause=cause
                )
            )

    async def _return_tmp_dir(self) -> None:
        """Remove the /tmp, unless a replacement is to find it (Lambda keeps it after a crash)."""
        if self.keeps_tmp or self.tmp_dir is None:
            return
        try:
            await self.equipment.tmp_dirs.give_back(self.tmp_dir)
        except OSError as exc:
            what = f"{self.tmp_dir.path} cannot be removed: {exc}"
            self._record(journal.Trouble(what=what))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # InitResult phase

    def _on_ready(self) -> None:
        self._cancel_timer()
        function = self.function
        self._group.throttle(self._cpus)
        self._move("ready")
        seconds = time.monotonic() - self.started
        log = self._log.drain()
        self._record(
            journal.WorkerReady(
                worker_id=self.worker_id, function=function.name, init_seconds=seconds
            )
        )
        self.initialised.set_result(InitResult("", seconds, log))

    def _init_failed(self, status: str, body: bytes, error_type: str) -> None:
        self.keeps_tmp = True
        seconds = time.monotonic() - self.started
        log = self._log.drain()
        log += failures.init_report(seconds, self._phase, status, error_type)
        self._record(
            journal.InitFailed(worker_id=self.worker_id, function=self.function.name, status=status)
        )
        self.initialised.set_result(InitResult(status, seconds, log, body, error_type))

    def _init_late(self) -> None:
        self.kill("the init phase was late")
        self._init_failed("timeout", b"", "Sandbox.Timedout")

    def _verdict(self, exit_: Exit | None) -> tuple[str, str]:
        """Return errorType and message for how the first process ended."""
        if self.ended_by:  # by us, who closed: no doing of the function
            return "Sandbox.Failure", f"The sandbox was lost: {self.ended_by}"
        return failures.exited(None if exit_ is None else exit_.status)

    # Invoke phase

    def invoke(
        self,
        request_id: str,
        payload: bytes,
        context: InvocationContext,
        stream: AnswerStream | None = None,
        init: InitResult | None = None,
        spent: float = 0.0,
        log: bytes = b"",
    ) -> asyncio.Future[Response]:
        """Send an invocation; return the future of its response, which always comes.

        `stream` takes the pieces of an answer that comes in pieces. `init` is the init phase that
        the caller waited for; `spent` and `log` are what a repeated one has used of the timeout,
        and printed. Raises `WorkerGone` if another worker has to run it.
        """
        if self.state == "frozen":
            self.thaw()
        # `_move` without a call, here and where it answers: twice for every invocation.
        self.state = TRANSITIONS[self.state]["invoked"]
        self.invocations += 1
        # Not where others run meanwhile: they would all be on one core.
        is_short = self.idle_since - self.started < SHORT and self.share.used == 1
        pinned = is_short and self._affinity.hold(self.pid)
        future: asyncio.Future[Response] = self._loop.create_future()
        self._call = (future, init, spent, log)
        self._request_id = request_id
        self.started = now = time.monotonic()
        # What was printed between invocations belongs to the worker, not to this request.
        self._log.drain()
        timeout = self.function.timeout - spent
        self._deadline = now + timeout
        if self._timer is None:
            self._timer = self._loop.call_later(timeout, self._watch_deadline)
        deadline_ms = int((time.time() + timeout) * 1000)
        self._stream = stream
        if context is NO_CONTEXT and stream is None:
            head = wire.InvokeFrame(request_id, deadline_ms, pinned=pinned)
        else:
            head = wire.InvokeFrame(
                request_id,
                deadline_ms,
                trace_id=context.trace_id,
                client_context=context.client_context,
                identity=context.identity,
                arn=context.arn,
                stream=stream is not None,
                pinned=pinned,
            )
            if stream is not None:
                stream.attach(self._channel.pause, self._channel.resume)
        if not self._channel.send(wire.encode(head, payload)):
            # It died, or closed its pipe, while it was idle: nobody has seen this invocation.
            self._call = None
            self.kill("the worker does not read any more")
            self._released(self)
            raise WorkerGone
        if is_short and self._affinity.may_look():
            self._channel.receive()  # on our core it ran while we wrote, and has answered
            if self._call is not None:
                # Or it is next: were we to sleep, we would be woken on another core.
                os.sched_yield()
                self._channel.receive()
        return future

    def _on_frame(self, head: wire.FromWorker, body: bytes) -> None:
        if self.state == "busy" and (
            type(head) is wire.ResponseFrame or type(head) is wire.FailureFrame
        ):
            if head.id == self._request_id:
                if head.max_rss_kb:
                    self.reported_rss = head.max_rss_kb * 1024
                peak = self.peak
                now = time.monotonic()
                if now - self._measured > MEASURE_SECONDS:
                    self._measured = now
                    peak = self.peak = self._group.peak()
                if peak >= self._memory_limit:
                    # If the kernel killed one of its processes, that the rest lived to answer
                    # is chance.
                    self.check_oom()
                    if self._call is None:
                        return
                self.state = TRANSITIONS[self.state]["answered"]
                self._complete(body, FAILED if type(head) is wire.FailureFrame else ANSWERED, peak)
                return
        elif self.state == "starting":
            if self._on_first(head, body):
                return
        elif isinstance(head, wire.ChunkFrame) and self._takes(head.id):
            assert self._stream is not None
            if not self._stream.put(body, head.content_type):
                self._too_large()
            return
        if self.state in ("stopping", "gone"):
            return
        self._violated(f"the worker sent a {type(head).__name__} that nobody waits for")

    def _takes(self, request_id: str) -> bool:
        """Return whether a piece of an answer is of one that may come in pieces."""
        return self.state == "busy" and self._stream is not None and request_id == self._request_id

    def _on_first(self, head: wire.FromWorker, body: bytes) -> bool:
        """Take what ends the init phase; return whether that is what it was."""
        if not self.pid:
            self._early.append((head, body))
        elif isinstance(head, wire.ReadyFrame):
            self._on_ready()
        elif isinstance(head, wire.FailureFrame) and not self.initialised.done():
            self.kill("the init phase failed")
            self._init_failed("error", body, failures.parse_failure(body).error_type)
        else:
            return False
        return True

    def _on_broken(self, what: str) -> None:
        """The pipes are of no more use. If the worker is exiting, its exit status says more."""
        if "sent" in what and self.pid:
            self._violated(what)
        else:
            self._loop.call_later(BROKEN_GRACE, self._still_broken, what)

    def _still_broken(self, what: str) -> None:
        # On a host that is short of memory the loop may see the exit later than this.
        if not self._tree.has_exited():
            self._violated(what)

    def _violated(self, what: str) -> None:
        if self.state in ("stopping", "gone"):
            return
        self.kill(what)
        if not self.initialised.done():
            body = failures.failure_body("Runtime.TruncatedResponse", f"Error: {what}")
            self._init_failed("error", body, "Runtime.TruncatedResponse")
        if self._call is not None:
            self.keeps_tmp = True
            self._fail("Runtime.TruncatedResponse", what)

    def _too_large(self) -> None:
        self.kill("its answer is too large")
        self.keeps_tmp = True
        text = f"Response payload size exceeded maximum allowed payload size ({MAX_STREAM} bytes)."
        self._complete(failures.failure_body("Function.ResponseSizeTooLarge", text), FAILED, 0)

    def _watch_deadline(self) -> None:
        """See whether the deadline has come: a timer stays, and if it came too early, is set again.

        To set and cancel one for each invocation would cost more.
        """
        self._timer = None
        if self._call is None:
            return
        left = self._deadline - time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch_deadline)
        else:
            self._late()

    def _late(self) -> None:
        """The deadline of an invocation has come."""
        timeout = self.function.timeout
        self.kill("timed out")
        self.keeps_tmp = True
        self._complete(*failures.late(self._request_id, timeout, time.time()), 0)

    def check_oom(self) -> None:
        """End the worker if the kernel killed one of its processes for memory.

        A handler may wait for such a child for ever, and v1 kills no more than the one.
        """
        if self._call is not None and self._group.oom_kills() > self._oom_kills:
            self.kill("out of memory")
            self._complete_exited(None, oom=True)

    def fail_for_memory(self, used: int) -> None:
        """The poll found the tree above its memory size, where no cgroup holds it."""
        if self._call is None:
            return
        self.kill(f"out of memory: {used // MB} MB")
        self._complete_exited(None, oom=True)

    def fail_for_tmp(self, used: int) -> None:
        """The poll found /tmp above its size, where no file system holds it."""
        if self._call is None:
            return
        what = f"/tmp holds {used // MB} MB of {self.function.ephemeral_storage} MB"  # noqa: S108
        self.kill(what)
        self._fail("Runtime.ExitError", f"Runtime exited with error: signal: killed ({what})")

    def _complete_exited(self, exit_: Exit | None, *, oom: bool) -> None:
        self.keeps_tmp = True
        if oom:
            text = "Runtime exited with error: signal: killed"
            self._fail("Runtime.ExitError", text, note="Runtime.OutOfMemory\n")
        else:
            self._fail(*self._verdict(exit_))

    def _fail(self, error_type: str, text: str, note: str = "") -> None:
        self._complete(*failures.broken(self._request_id, error_type, text, note), 0)

    def _complete(self, body: bytes, outcome: Outcome, peak: int) -> None:
        """End the invocation: the one place where it does. A `peak` of 0 is looked up."""
        assert self._call is not None
        future, init, spent, before = self._call
        self._call = None
        self.idle_since = ended = time.monotonic()
        log = self._log.drain()
        if outcome.note:
            log += (b"\n" if log and not log.endswith(b"\n") else b"") + outcome.note.encode()
        if not peak:
            peak = self._group.peak() or max(self.peak, self.reported_rss)
        function = self.function
        invoked = Invoked(
            ended,
            function.name,
            self._request_id,
            ended - self.started + spent,
            None if init is None else init.seconds,
            function.memory_size,
            peak,
            self.worker_id,
            self.limits,
            init is not None or bool(before),
            outcome.failed,
            self.book,
            outcome.status,
            outcome.error_type,
        )
        self._record(invoked)
        keep = self.equipment.keep_log
        if keep is not None or not future.done():
            init_log = before if init is None else init.log
            response = Response(body, invoked, log, init_log, function.version)
            if keep is not None:
                keep(response, time.time())
            if not future.done():
                future.set_result(response)
        # Last, so that who waited for the worker, and is answered at once, comes after.
        self._released(self)

    # Freeze, thaw, end

    def freeze(self) -> None:
        """Stop scheduling an idle worker."""
        self._move("frozen")
        self._group.freeze()
        self._record(journal.WorkerFrozen(worker_id=self.worker_id))

    def thaw(self) -> None:
        """Schedule it again."""
        self._move("thawed")
        self._group.thaw()
        self._record(journal.WorkerThawed(worker_id=self.worker_id))

    def stop(self, reason: str) -> None:
        """End the worker politely: SIGTERM, and SIGKILL after the grace. Idle workers only."""
        if self.state in ("stopping", "gone"):
            return
        if self.state == "frozen":
            self._group.thaw()
        self._end(reason)
        self._tree.signal(signal.SIGTERM)
        # An interpreter that was about to block in read(2) would see the signal only after it.
        self._channel.send(wire.NOTHING)
        self._timer = self._loop.call_later(self.equipment.settings.shutdown_grace, self._tree.kill)

    def kill(self, reason: str) -> None:
        """End every process of the worker now."""
        if self.state in ("stopping", "gone"):
            return
        self._end(reason)
        self._tree.kill()

    def _end(self, reason: str) -> None:
        self._move("stopped")
        self._cancel_timer()
        self.ended_by = reason
        self._record(journal.WorkerStopped(worker_id=self.worker_id, reason=reason))

    def _on_reaped(self, exited: asyncio.Future[Exit | None]) -> None:
        """The zygote says how the worker ended; None is a zygote that died, and will not reap.

        The kernel kills its workers with it, but one that cgroup v1 has frozen is not dead until
        somebody thaws it.
        """
        if not exited.cancelled() and exited.result() is None:
            self.kill("its zygote died")

    def _on_exit(self) -> None:
        if self.state in ("idle", "frozen"):
            self._move("exited")  # at once: the pool must not hand out a dead worker
