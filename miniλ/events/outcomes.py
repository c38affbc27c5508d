"""What becomes of an asynchronous event, by how its invocation ended.

    the function answered        it ends; a record for OnSuccess
    the function failed          retried after `event_retry`, then twice that; then a record for
                                 OnFailure, and the event itself for the dead-letter queue
    no concurrency, or an        retried after 1 s, 2 s, 4 s ... at most 300 s, until it is older
    error of miniλ               than MaximumEventAgeInSeconds; this uses up no retry
    the supervisor died          run again after the next start; MAX_CRASHES times

A destination that is a function gets its record as another event. A record for a service that
miniλ does not have (SQS, SNS, EventBridge, S3) is kept by the queue. So is the event itself if it
never ran to an end and has no destination: its function was deleted, or its supervisors died.

Rule: these functions decide, and record trouble in the journal; `delivery` carries it out.

Source: Lambda developer guide, "Error handling for an asynchronous invocation"; Lambda's own
retries come one minute later, and then two.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from miniλ import journal, names, traces
from miniλ.errors import LambdaError, ResourceNotFound
from miniλ.events import destinations, queue
from miniλ.events.queue import AsyncEvent, Record
from miniλ.invoker import new_request_id
from miniλ.model import LATEST
from miniλ.store.resources import EVENT_INVOKE
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    from miniλ.events.destinations import Condition
    from miniλ.events.queue import QueuedEvent
    from miniλ.functions import Functions
    from miniλ.journal import Journal
    from miniλ.model import Response

# Lambda's rules for a function without PutFunctionEventInvokeConfig.
MAX_RETRIES, MAX_AGE = 2, 6 * 3600
# Lambda's backoff for what is not the function's fault.
MIN_PAUSE, MAX_PAUSE = 1.0, 300.0
# An event that was running at the death of this many supervisors is taken for the cause.
MAX_CRASHES = 5


class Rules(NamedTuple):
    """The configuration of a function's events; ARNs are "" for none."""

    retries: int
    age: float
    on_success: str
    on_failure: str
    dead_letter: str


class Retry(NamedTuple):
    """An event has not ended: when it is due again, its new counters, and why."""

    due: float
    attempts: int
    refusals: int
    why: str


class End(NamedTuple):
    """An event has ended: how, and which events and records come of it."""

    condition: str
    outcomes: tuple[AsyncEvent | Record, ...] = ()


class Outcomes:
    """Decides what becomes of the events of one supervisor."""

    def __init__(self, functions: Functions, facts: Journal, retry: float) -> None:
        """`retry`: seconds before the first retry of a function that failed."""
        self._functions = functions
        self._journal = facts
        self._retry = retry

    def end_without_run(self, queued: QueuedEvent) -> End | None:
        """Return the end of an event that may not run any more, or None.

        Raises `ResourceNotFound` if its function is deleted.
        """
        event = queued.event
        rules = self._rules(event)
        if self._functions.get(event.function).reserved_concurrency == 0:
            return self._end(queued, rules, "ZeroReservedConcurrency")
        if queue.now() - queued.accepted >= rules.age:
            return self._end(queued, rules, "EventAgeExceeded")
        if queued.crashes >= MAX_CRASHES:
            return self._end_of_poisoned(queued, rules)
        return None

    def after_response(self, queued: QueuedEvent, response: Response) -> Retry | End:
        """Return a retry or the end of an event by the response of its function."""
        rules = self._rules(queued.event)
        failure = response.failure
        if failure is None:
            return self._end(queued, rules, "Success", response)
        if queued.attempts >= rules.retries:
            return self._end(queued, rules, "RetriesExhausted", response)
        pause = self._retry * 2**queued.attempts
        due = min(queue.now() + pause, queued.accepted + rules.age)
        return Retry(due, queued.attempts + 1, 0, failure.error_type)

    def retry_for_refusal(self, queued: QueuedEvent, why: str) -> Retry:
        """Return when an event is due again that could not run, by no fault of its function."""
        pause = min(MAX_PAUSE, MIN_PAUSE * 2 ** min(queued.refusals, 16))
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads the retries of one cause
        now = queue.now()
        due = min(now + pause, queued.accepted + self._rules(queued.event).age)
        return Retry(max(due, now + MIN_PAUSE / 2), queued.attempts, queued.refusals + 1, why)

    def retry_for_close(self, queued: QueuedEvent) -> Retry:
        """Return a retry that is due at the next start, with the same counters."""
        return Retry(queue.now(), queued.attempts, queued.refusals, "the supervisor closed")

    def end_of_deleted(self, queued: QueuedEvent, why: str) -> End:
        """Return the end of an event whose function, with its destinations, is deleted."""
        event = queued.event
        self._trouble(
            f"event {event.request_id} of {event.function} does not run ({why}): it is kept as a "
            "record, see `minilambda events`"
        )
        return End("FunctionDeleted", (self._record_of(event, why),))

    def _rules(self, event: AsyncEvent) -> Rules:
        part = "" if event.qualifier == LATEST else event.qualifier
        config = self._functions.registry.get(EVENT_INVOKE, event.function, part) or {}
        targets = config.get("DestinationConfig", {})
        try:
            passthrough = self._functions.get(event.function, event.qualifier).passthrough
        except ResourceNotFound:
            passthrough = {}
        return Rules(
            config.get("MaximumRetryAttempts", MAX_RETRIES),
            config.get("MaximumEventAgeInSeconds", MAX_AGE),
            targets.get("OnSuccess", {}).get("Destination", ""),
            targets.get("OnFailure", {}).get("Destination", ""),
            passthrough.get("DeadLetterConfig", {}).get("TargetArn", ""),
        )

    def _end_of_poisoned(self, queued: QueuedEvent, rules: Rules) -> End:
        """Return the end of an event that was running at the death of too many supervisors."""
        event = queued.event
        why = f"a supervisor ended {queued.crashes} times while it ran"
        self._trouble(
            f"event {event.request_id} of {event.function} is given up: {why}; see its record in "
            "`minilambda events`, or its destination"
        )
        end = self._end(queued, rules, "RetriesExhausted")
        # Without a destination the event itself is kept, for the operator.
        return end if end.outcomes else End(end.condition, (self._record_of(event, why),))

    def _record_of(self, event: AsyncEvent, why: str) -> Record:
        """Return a record of an event that was accepted and reaches no destination."""
        return Record(event.request_id, "", event.payload.decode(errors="replace"), why)

    def _end(
        self,
        queued: QueuedEvent,
        rules: Rules,
        condition: Condition,
        response: Response | None = None,
    ) -> End:
        """Return the end of an event, with what its destinations get."""
        event = queued.event
        target = rules.on_success if condition == "Success" else rules.on_failure
        outcomes: list[AsyncEvent | Record] = []
        if target:
            arn = self._functions.place.function(event.function, event.qualifier or LATEST)
            count = queued.attempts + queued.crashes + (response is not None)
            document = destinations.record(
                event.request_id, arn, condition, count, event.payload, response
            )
            outcomes.append(self._sending(event, target, document))
        if rules.dead_letter and condition != "Success":
            letter = destinations.dead_letter(event.request_id, event.payload, response, condition)
            outcomes.append(self._unreachable(event, rules.dead_letter, letter))
        return End(condition, tuple(outcomes))

    def _sending(self, event: AsyncEvent, target: str, document: bytes) -> AsyncEvent | Record:
        """Return the event for a function that is a destination, or a record for any other."""
        if target.split(":")[2:3] != ["lambda"]:
            return self._unreachable(event, target, document)
        request_id = new_request_id()
        try:
            name, qualifier = names.function(target, None, self._functions.place)
            trace_id = event.context.trace_id
            if trace_id is None or not traces.has_lineage(trace_id):
                trace_id = self._functions.extend_trace(event.function, trace_id, request_id)
            trace_id = self._functions.extend_trace(name, trace_id, request_id)
        except LambdaError as exc:  # another region's, or a recursive loop
            return self._unreachable(event, target, document, str(exc))
        context = InvocationContext(trace_id=trace_id, arn=target)
        return AsyncEvent(request_id, name, qualifier, document, context)

    def _unreachable(
        self, event: AsyncEvent, target: str, document: bytes, error: str = ""
    ) -> Record:
        """Return the record that the queue keeps for a target that miniλ does not reach."""
        if error:
            self._trouble(
                f"the record of event {event.request_id} of {event.function} cannot be sent to "
                f"{target} ({error}): it is kept, see `minilambda events`"
            )
        why = error or "no such service is reached from here"
        return Record(event.request_id, target, document.decode(errors="replace"), why)

    def _trouble(self, what: str) -> None:
        self._journal.record(journal.Trouble(what=what))
