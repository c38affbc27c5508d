"""This module is outcomes: what becomes of an asynchronous event, by how its invocation ended.

    the function answered        over; a record for OnSuccess
    the function failed          again after `event_retry`, then twice that; then a record for
                                 OnFailure, and the event itself for the dead-letter queue
    there was no room, or we     again after 1 s, 2 s, 4 s ... at most 300 s, until it is older than
    failed                       MaximumEventAgeInSeconds; this uses up no retry
    the supervisor died          again, when it is back; MOST_CRASHES times

A record goes to a function as another event. What goes to services that are not here (SQS, SNS,
EventBridge, S3) is a record that the queue keeps, and so is an event that nothing became of.

Rule: nothing is done here, but that trouble is told; `delivery` carries it out.

Source: Lambda developer guide, "Error handling for an asynchronous invocation"; Lambda's own
retries come one minute later, and then two.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from miniλ import journal, names, traces
from miniλ.errors import LambdaError, ResourceNotFound
from miniλ.events import destinations, queue
from miniλ.events.queue import Draft, Record
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

# Lambda's rules where PutFunctionEventInvokeConfig said nothing.
MOST_RETRIES, MOST_AGE = 2, 6 * 3600
# Lambda's backoff for what is not the function's fault.
LEAST_PAUSE, MOST_PAUSE = 1.0, 300.0
# An event that so many lives of a supervisor ended with is held for the cause.
MOST_CRASHES = 5


class Rules(NamedTuple):
    """What was said of the events of a function; ARNs are "" for none."""

    retries: int
    age: float
    on_success: str
    on_failure: str
    dead_letter: str


class Again(NamedTuple):
    """An event is not over: when it is due, and what counts from then on."""

    due: float
    attempts: int
    refusals: int
    why: str


class Over(NamedTuple):
    """An event is over: how, and what comes of it."""

    condition: str
    then: tuple[Draft | Record, ...] = ()


class Outcomes:
    """What becomes of the events of one supervisor."""

    def __init__(self, functions: Functions, facts: Journal, retry: float) -> None:
        """`retry`: seconds before the first retry of a function that failed."""
        self._functions = functions
        self._journal = facts
        self._retry = retry

    def before(self, event: QueuedEvent) -> Over | None:
        """Return the end of an event that may not run any more, or None.

        Raises `ResourceNotFound` where its function is gone.
        """
        draft = event.draft
        rules = self._rules(draft)
        if self._functions.get(draft.function).reserved_concurrency == 0:
            return self._over(event, rules, "ZeroReservedConcurrency")
        if queue.now() - event.accepted >= rules.age:
            return self._over(event, rules, "EventAgeExceeded")
        if event.crashes >= MOST_CRASHES:
            return self._poison(event, rules)
        return None

    def answered(self, event: QueuedEvent, response: Response) -> Again | Over:
        """Return what becomes of an event whose function ran, and answered or failed."""
        rules = self._rules(event.draft)
        failure = response.failure
        if failure is None:
            return self._over(event, rules, "Success", response)
        if event.attempts >= rules.retries:
            return self._over(event, rules, "RetriesExhausted", response)
        pause = self._retry * 2**event.attempts
        due = min(queue.now() + pause, event.accepted + rules.age)
        return Again(due, event.attempts + 1, 0, failure.error_type)

    def refused(self, event: QueuedEvent, why: str) -> Again:
        """Return when an event runs again that has not run by no fault of its function."""
        pause = min(MOST_PAUSE, LEAST_PAUSE * 2 ** min(event.refusals, 16))
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - so that not all come at once
        now = queue.now()
        due = min(now + pause, event.accepted + self._rules(event.draft).age)
        return Again(max(due, now + LEAST_PAUSE / 2), event.attempts, event.refusals + 1, why)

    def interrupted(self, event: QueuedEvent) -> Again:
        """Return what becomes of an event that was not ended before the supervisor closed."""
        return Again(queue.now(), event.attempts, event.refusals, "the supervisor closed")

    def deleted(self, event: QueuedEvent, why: str) -> Over:
        """Return the end of an event whose function is gone, and with it whoever might be told."""
        draft = event.draft
        self._trouble(f"event {draft.request_id} does not run, and is kept: {why}")
        return Over("FunctionDeleted", (self._kept(draft, why),))

    def _rules(self, draft: Draft) -> Rules:
        part = "" if draft.qualifier == LATEST else draft.qualifier
        said = self._functions.registry.get(EVENT_INVOKE, draft.function, part) or {}
        towards = said.get("DestinationConfig", {})
        try:
            told = self._functions.get(draft.function, draft.qualifier).passthrough
        except ResourceNotFound:
            told = {}
        return Rules(
            said.get("MaximumRetryAttempts", MOST_RETRIES),
            said.get("MaximumEventAgeInSeconds", MOST_AGE),
            towards.get("OnSuccess", {}).get("Destination", ""),
            towards.get("OnFailure", {}).get("Destination", ""),
            told.get("DeadLetterConfig", {}).get("TargetArn", ""),
        )

    def _poison(self, event: QueuedEvent, rules: Rules) -> Over:
        """End an event that a supervisor died with too often; nobody may lose sight of it."""
        draft = event.draft
        why = f"a supervisor ended {event.crashes} times while it ran"
        self._trouble(f"event {draft.request_id} of {draft.function} is given up: {why}")
        over = self._over(event, rules, "RetriesExhausted")
        if over.then:
            return over
        return Over(over.condition, (self._kept(draft, why),))

    def _kept(self, draft: Draft, why: str) -> Record:
        """Return a record of the event itself: it was accepted, and nobody was told of its end."""
        return Record(draft.request_id, "", draft.payload.decode(errors="replace"), why)

    def _over(
        self,
        event: QueuedEvent,
        rules: Rules,
        condition: Condition,
        response: Response | None = None,
    ) -> Over:
        """Return the end of an event, with all that is to be told of it."""
        draft = event.draft
        target = rules.on_success if condition == "Success" else rules.on_failure
        then: list[Draft | Record] = []
        if target:
            arn = self._functions.place.function(draft.function, draft.qualifier or LATEST)
            count = event.attempts + event.crashes + (response is not None)
            document = destinations.record(
                draft.request_id, arn, condition, count, draft.payload, response
            )
            then.append(self._told(draft, target, document))
        if rules.dead_letter and condition != "Success":
            letter = destinations.dead_letter(draft.request_id, draft.payload, response, condition)
            then.append(self._unreachable(draft, rules.dead_letter, letter))
        return Over(condition, tuple(then))

    def _told(self, draft: Draft, target: str, document: bytes) -> Draft | Record:
        """Return the event that tells a function, or the record for another service."""
        if target.split(":")[2:3] != ["lambda"]:
            return self._unreachable(draft, target, document)
        request_id = new_request_id()
        try:
            name, qualifier = names.function(target, None, self._functions.place)
            trace_id = draft.context.trace_id
            if trace_id is None or not traces.is_counted(trace_id):
                trace_id = self._functions.traced(draft.function, trace_id, request_id)
            trace_id = self._functions.traced(name, trace_id, request_id)
        except LambdaError as exc:  # another region's, or a circle
            return self._unreachable(draft, target, document, str(exc))
        context = InvocationContext(trace_id=trace_id, arn=target)
        return Draft(request_id, name, qualifier, document, context)

    def _unreachable(self, draft: Draft, target: str, document: bytes, why: str = "") -> Record:
        """Return a record that is kept, since nobody here can bring it to its target."""
        if why:
            what = f"what became of event {draft.request_id} is kept, and not at {target}: {why}"
            self._trouble(what)
        why = why or "no such service is reached from here"
        return Record(draft.request_id, target, document.decode(errors="replace"), why)

    def _trouble(self, what: str) -> None:
        self._journal.record(journal.Trouble(what=what))
