"""One worker: init, invoke, freeze, thaw, stop, kill.

Theory of operation: `live` is a worker's whole life in one coroutine, which the pool owns: it
leases a cgroup and a /tmp, has the zygote fork, waits for the end and gives back what it leased.
Everything in between is driven by callbacks of the event loop (a frame, a deadline, a pidfd),
because a warm invocation must not cost a task switch. An invocation belongs to the worker and
not to its caller: a caller that leaves does not stop the function, as on Lambda.

Rule 1: whether a worker lives is read from its pidfd: a child of it may keep every pipe open.

Rule 2: an invocation ends in `_complete`, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, TypeAlias

from miniλ import billing, failures, journal
from miniλ.errors import LambdaError, ServiceError, SupervisorClosed
from miniλ.failures import ANSWERED, FAILED
from miniλ.model import MB, Invoked, Response
from miniλ.runtimes import environment
from miniλ.worker import launch, log_pipe, process_tree, verdicts, wire
from miniλ.worker.answer_stream import MAX_STREAM, AnswerStream
from miniλ.worker.channel import Channel
from miniλ.worker.equipment import (
    MB_PER_CPU,
    NO_CONTEXT,
    PROCESSES,
    Equipment,
    InvocationContext,
    WorkerGone,
    check_code,
)
from miniλ.worker.init_phase import InitPhase, InitResult
from miniλ.worker.lifecycle import TRANSITIONS, Story
from miniλ.worker.process_tree import ProcessTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.concurrency import Concurrency
    from miniλ.failures import Outcome
    from miniλ.model import FunctionConfiguration
    from miniλ.worker.lifecycle import State
    from miniλ.worker.tmp_dirs import TmpDir
    from miniλ.worker.zygote import Exit

    # Future; the init phase that the caller waited for; seconds and log of a repeated one.
    _Call: TypeAlias = tuple[asyncio.Future[Response], "InitResult | None", float, bytes]

# Seconds from a broken answer pipe to its report: the exit status may come, and says more.
BROKEN_GRACE = 0.2
# Seconds. A worker whose last invocation was shorter is woken on the supervisor's own core, which
# saves 30 us. During a longer one the event loop would wait there until the kernel's next tick.
SHORT = 0.001
# The memory's peak is read once in this many seconds at most, and not for each short invocation.
MEASURE_SECONDS = 0.001


class Worker:
    """One live process that runs one version of one function, one invocation at a time."""

    # Not a dict: with more than 30 attributes CPython looks each of them up by its hash.
    # fmt: off
    __slots__ = (
        "_affinity", "_call", "_channel", "_cpus", "_deadline", "_early", "_group", "_init", "_log",
        "_loop", "_measured", "_memory_limit", "_on_over", "_oom_kills", "_record", "_request_id",
        "_stream", "_timer", "_tree", "book", "concurrency", "ended_by", "equipment", "function",
        "idle_since", "initialised", "initialization", "invocations", "keeps_tmp", "limits",
        "log_stream", "peak", "pid", "reported_rss", "started", "state", "story", "tmp_dir",
        "unkillable", "worker_id",
    )
    # fmt: on

    def __init__(
        self,
        equipment: Equipment,
        function: FunctionConfiguration,
        on_over: Callable[[Worker], None],
        init_timeout: float,
        *,
        initialization: str = environment.ON_DEMAND,
        repeats_init: bool = False,
    ) -> None:
        """Make a worker that has not started.

        `on_over` is called when an invocation is over, in the turn before its caller goes on.
        `repeats_init` is for one that repeats, inside an invocation, an init phase that failed.
        """
        self.equipment = equipment
        self.function = function
        self._record = equipment.journal.record
        self._on_over = on_over
        self.book = billing.BOOKS[equipment.settings.price_book]
        # The instance's id leads, so that what a dead supervisor left can be found by it.
        self.worker_id = equipment.instance + os.urandom(16).hex()[: 32 - len(equipment.instance)]
        # Decided here, once: the function's context and the logbook have the same name.
        self.log_stream = environment.log_stream(function, self.worker_id, time.time())
        self.initialization = initialization
        self.state: State = "starting"
        self.story = Story()
        self.invocations = 0
        self.idle_since = 0.0
        self.pid = 0
        # In bytes: what the worker reports of itself, and the highest that was measured from here.
        self.reported_rss = 0
        self.peak = 0
        # Why the supervisor ended the worker, "" if it did not; its next failure says so.
        self.ended_by = ""
        self.keeps_tmp = False
        # The limit that its invocation counts in. The pool sets it.
        self.concurrency: Concurrency
        # Its own /tmp. The pool sets it before the start if one survived a crash.
        self.tmp_dir: TmpDir | None = None
        self.limits = equipment.limits_of(function)
        self._loop = asyncio.get_running_loop()
        self._init = InitPhase(
            self.worker_id, function.name, self._record, init_timeout, is_repeated=repeats_init
        )
        self.initialised = self._init.result
        self._tree = ProcessTree(self, self._record)
        # Done when a process has outlived its SIGKILL: in D state, on a file system that hangs.
        # `live` waits for its end all the same; all others that wait for this worker may stop.
        self.unkillable = self._tree.unkillable
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
        # Frames that came before the zygote's report of the fork: a worker may be that quick.
        self._early: list[tuple[wire.FromWorker, bytes]] = []

    def __repr__(self) -> str:
        name = f"{self.worker_id[-8:]} {self.function.name}"
        return f"<Worker {name} {self.state}, {self.invocations} invocations>"

    def _move(self, fact: str) -> None:
        state = TRANSITIONS[self.state].get(fact)
        if state is None:
            raise self._impossible(fact)
        self.story.add(fact, self.invocations, in_flight=self.state == "busy")
        self.state = state

    def _impossible(self, fact: str) -> AssertionError:
        story = self.story.text(self.invocations, in_flight=self.state == "busy")
        return AssertionError(f"{self!r} cannot be {fact}; its story: {story}")

    # Life

    async def live(self) -> None:
        """Run the worker, from its fork to the end of its last process.

        How its init phase went is `initialised`: a result, or the error that kept it from starting.
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
        """Raise an error in what waits for the init phase, or record it if that is over."""
        if self.initialised.done():
            what = f"{self!r} failed after its init phase, and is ended: {error}"
            self._record(journal.Trouble(what=what))
        else:
            self._init.cannot_start(error)

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        function, equipment = self.function, self.equipment
        check_code(function)
        zygote = await equipment.zygotes.get(function.runtime)
        group = self._group = self._tree.group = equipment.hierarchy.lease(self.worker_id)
        undo.callback(equipment.hierarchy.give_back, group)
        self._oom_kills = group.oom_kills()
        group.limit(self._memory_limit, PROCESSES)
        # The init phase has no CPU quota: that comes when the worker is ready. A repeated one is
        # part of an invocation, and has the invocation's quota.
        group.throttle(self._cpus if self._init.is_repeated else None)
        if self.tmp_dir is None:
            # The modules that an app's function is imported from may be the app's user's to read.
            own_user = not function.python_path
            self.tmp_dir = await equipment.tmp_dirs.lease(
                self.worker_id, function.ephemeral_storage, own_user=own_user
            )
        undo.push_async_callback(self._give_back_tmp_dir)

        introduction = equipment.init_frame(
            function,
            program=zygote.program,
            tmp_dir=self.tmp_dir.path,
            stream=self.log_stream,
            initialization=self.initialization,
        )
        ours, theirs = launch.pipes()
        with contextlib.closing(theirs):
            self._channel = Channel(
                self._loop,
                ours.request,
                ours.answer,
                self._on_frame,
                self._on_broken,
                self._on_no_frame,
            )
            undo.callback(self._channel.close)
            self._log = log_pipe.LogPipe(self._loop, ours.log, equipment.settings.log_bytes)
            undo.callback(self._log.close)
            # From here on, and not from the lease on: leasing is not the function's time.
            self._init.begin()
            self.started = time.monotonic()
            # Written before the worker exists: it finds its function at its first read.
            self._channel.send(introduction)
            forked = await launch.fork(
                zygote, equipment, function, self.worker_id, group.key, self.tmp_dir, theirs
            )
        self.pid = forked.pid
        self._tree.take(forked.pid, forked.pidfd, self._on_exit)
        forked.exited.add_done_callback(self._on_reaped)
        undo.callback(self._tree.close)
        # Last in, first out: the processes go before what they used.
        undo.push_async_callback(self._bury, forked.exited)
        equipment.journal.record(
            journal.WorkerStarted(worker_id=self.worker_id, function=function.name, pid=forked.pid)
        )
        self._timer = self._loop.call_later(self._init.seconds_left(), self._on_init_timeout)
        for frame in self._early:
            self._on_frame(*frame)

    async def _bury(self, exited: asyncio.Future[Exit | None]) -> None:
        """Wait until no process of the worker is left, and record how the first one ended.

        A process that SIGKILL does not end is left behind if the supervisor closes.
        """
        tree = self._tree
        if self.state != "gone" and not tree.gone.done():
            # The process still runs: `live` was cancelled, or a step after the fork failed.
            task = asyncio.current_task()
            is_closing = task is not None and task.cancelling() > 0
            self.kill("the supervisor closed" if is_closing else "its start failed")
            await tree.first_ended()
        tree.unregister()
        self._cancel_timer()
        exit_: Exit | None = None
        if tree.gone.done():
            with contextlib.suppress(TimeoutError):
                exit_ = await asyncio.wait_for(asyncio.shield(exited), process_tree.BURIAL_TIMEOUT)
        # An answer that was written before the exit counts.
        self._channel.receive()
        oom = self._group.oom_kills() > self._oom_kills
        if self.state != "gone":
            self._move("exited")
        if not self.initialised.done():
            kind, text = verdicts.of_exit(exit_, self.ended_by)
            self._fail_init("error", failures.failure_payload(kind, f"Error: {text}"), kind)
        if self._call is not None:
            self.keeps_tmp = True
            self._complete(*verdicts.exited(self._request_id, exit_, self.ended_by, oom=oom))
        if await tree.end():
            cause = "the zygote died" if exit_ is None else failures.describe_status(exit_.status)
            fact = journal.WorkerExited(
                worker_id=self.worker_id, function=self.function.name, cause=cause
            )
            self._record(fact)

    async def _give_back_tmp_dir(self) -> None:
        """Give the /tmp back, unless a replacement inherits it (Lambda keeps it after a crash)."""
        if self.keeps_tmp or self.tmp_dir is None:
            return
        try:
            await self.equipment.tmp_dirs.give_back(self.tmp_dir)
        except OSError as exc:
            what = f"{self.tmp_dir.path} cannot be removed: {exc}; the next start sweeps it"
            self._record(journal.Trouble(what=what))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Init phase

    def _on_init_frame(self, head: wire.FromWorker, payload: bytes) -> bool:
        """Take a frame of the init phase; return whether it may come there."""
        if not self.pid:
            self._early.append((head, payload))
        elif isinstance(head, wire.ReadyFrame):
            self._cancel_timer()
            self._group.throttle(self._cpus)
            self._move("ready")
            self._init.succeed(self._log.drain())
        elif isinstance(head, wire.FailureFrame) and not self.initialised.done():
            self.kill("the init phase failed")
            self._fail_init("error", payload, failures.parse_failure(payload).error_type)
        else:
            return False
        return True

    def _on_init_timeout(self) -> None:
        self.kill("the init phase was late")
        self._fail_init("timeout", b"", "Sandbox.Timedout")

    def _fail_init(self, status: str, payload: bytes, error_type: str) -> None:
        self.keeps_tmp = True
        self._init.fail(status, payload, error_type, self._log.drain())

    def record_failed_init(self, response: Response) -> None:
        """Record and log an invocation that ended in its repeated init phase: it was never sent."""
        self._record(response.invoked)
        if self.equipment.keep_log is not None:
            self.equipment.keep_log(response, self.log_stream, time.time())

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
        the caller waited for. `spent` and `log` are of a repeated init phase: the seconds that it
        used of the timeout, and its log. Raises `WorkerGone` if another worker has to run it.
        """
        if self.state == "frozen":
            self.thaw()
        # `_move` without a call, here and in `_on_frame`: both are on the path of each invocation.
        try:
            self.state = TRANSITIONS[self.state]["invoked"]
        except KeyError:
            raise self._impossible("invoked") from None
        self.invocations += 1
        # Only while no other invocation of its limit runs: they would all be on one core.
        is_short = self.idle_since - self.started < SHORT and self.concurrency.used == 1
        pinned = is_short and self._affinity.pin(self.pid)
        future: asyncio.Future[Response] = self._loop.create_future()
        self._call = (future, init, spent, log)
        self._request_id = request_id
        self.started = now = time.monotonic()
        # What was printed between invocations belongs to the worker, not to this request.
        self._log.drain()
        timeout = self.function.timeout - spent
        self._deadline = now + timeout
        if self._timer is None:
            self._timer = self._loop.call_later(timeout, self._check_deadline)
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
            # It died, or closed its pipe, while it was idle: it has not read this invocation.
            self._call = None
            self.kill("the worker does not read any more")
            self._on_over(self)
            raise WorkerGone
        if is_short and self._affinity.may_poll():
            self._channel.receive()  # on the same core it ran during the write, and has answered
            if self._call is not None:
                # Or it runs next. The loop's sleep would end on another core; a yield does not.
                os.sched_yield()
                self._channel.receive()
        return future

    def _on_frame(self, head: wire.FromWorker, payload: bytes) -> None:
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
                outcome = FAILED if type(head) is wire.FailureFrame else ANSWERED
                self._complete(payload, outcome, peak)
                return
        elif self.state == "starting":
            if self._on_init_frame(head, payload):
                return
        elif self._call is not None and isinstance(head, wire.ChunkFrame):
            if self._stream is None or head.id != self._request_id:
                self._on_violation("the worker sent a chunk that it may not send")
            elif not self._stream.put(payload, head.content_type):
                self._cut_off("its answer is too large", *verdicts.too_large(MAX_STREAM))
            return
        self._on_violation(f"the worker sent a {type(head).__name__} out of turn")

    def _on_no_frame(self, what: str) -> None:
        """End the worker, which sent bytes that are no frame, once its pidfd is here."""
        if self.pid:
            self._on_violation(what)
        else:
            self._on_broken(what)

    def _on_broken(self, what: str) -> None:
        """End the worker, which closed a pipe, unless its exit is seen first: that says more."""
        self._loop.call_later(BROKEN_GRACE, self._on_still_broken, what)

    def _on_still_broken(self, what: str) -> None:
        # On a host that is short of memory the loop may see the exit later than this.
        if not self._tree.has_exited():
            self._on_violation(what)

    def _on_violation(self, what: str) -> None:
        """End the worker: what it sent is not what `workers/PROTOCOL.md` allows now."""
        if self.state in ("stopping", "gone"):
            return
        self.kill(what)
        if not self.initialised.done():
            payload = failures.failure_payload("Runtime.TruncatedResponse", f"Error: {what}")
            self._fail_init("error", payload, "Runtime.TruncatedResponse")
        if self._call is not None:
            self.keeps_tmp = True
            self._complete(*verdicts.truncated(self._request_id, what))

    def _check_deadline(self) -> None:
        """End the invocation in flight if its deadline has come, else set the timer again.

        One timer serves many invocations: one for each would cost more.
        """
        self._timer = None
        if self._call is None:
            return
        left = self._deadline - time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_deadline)
        else:
            end = failures.late(self._request_id, self.function.timeout, time.time())
            self._cut_off("timed out", *end)

    def check_oom(self) -> None:
        """End the worker if the kernel killed one of its processes for memory.

        Its handler may wait for that process for ever, and cgroup v1 kills no other.
        """
        if self._call is not None and self._group.oom_kills() > self._oom_kills:
            self._cut_off("out of memory", *verdicts.out_of_memory(self._request_id))

    def fail_for_memory(self, used: int) -> None:
        """End the worker: the limit poll found its tree above its memory size."""
        if self._call is not None:
            end = verdicts.out_of_memory(self._request_id)
            self._cut_off(f"out of memory: {used // MB} MB", *end)

    def fail_for_tmp(self, used: int) -> None:
        """End the worker: the limit poll found its /tmp above its size. No replacement gets it."""
        if self._call is not None:
            size = self.function.ephemeral_storage
            what = f"/tmp holds {used // MB} MB of {size} MB"  # noqa: S108 - a message
            self._cut_off(what, *verdicts.tmp_full(self._request_id, what), keeps_tmp=False)

    def _cut_off(
        self, reason: str, payload: bytes, outcome: Outcome, *, keeps_tmp: bool = True
    ) -> None:
        """End the worker, and with it the invocation in flight."""
        self.kill(reason)
        self.keeps_tmp = keeps_tmp
        self._complete(payload, outcome)

    def _complete(self, payload: bytes, outcome: Outcome, peak: int = 0) -> None:
        """End the invocation in flight, here only. A `peak` of 0 is read from the cgroup."""
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
            response = Response(payload, invoked, log, init_log, function.version)
            if keep is not None:
                keep(response, self.log_stream, time.time())
            if not future.done():
                future.set_result(response)
        # Last: an invocation that waits for this worker may begin, and be answered, in this call.
        self._on_over(self)

    # Freeze, thaw, end

    def freeze(self) -> None:
        """Stop scheduling an idle worker."""
        self._move("frozen")
        self._group.freeze()
        self._record(journal.WorkerFrozen(worker_id=self.worker_id))

    def thaw(self) -> None:
        """Schedule the worker again."""
        self._move("thawed")
        self._group.thaw()
        self._record(journal.WorkerThawed(worker_id=self.worker_id))

    def stop(self, reason: str) -> None:
        """End an idle worker politely: SIGTERM, and SIGKILL after the grace period."""
        if self.state in ("stopping", "gone"):
            return
        if self.state == "frozen":
            self._group.thaw()
        self._end(reason)
        self._tree.signal(signal.SIGTERM)
        # An interpreter that was about to block in read(2) sees the signal when the read returns.
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
        """End the worker if its zygote died; for other exits the pidfd is enough.

        The kernel kills the workers of a dead zygote, but one that cgroup v1 has frozen is dead
        only when it is thawed. `kill` does that.
        """
        if not exited.cancelled() and exited.result() is None:
            self.kill("its zygote died")

    def _on_exit(self) -> None:
        if self.state in ("idle", "frozen"):
            self._move("exited")  # at once: the pool must not lease a dead worker
