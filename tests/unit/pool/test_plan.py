"""Tests of the plan: which invocation gets which worker, on plain values."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.concurrency import UNRESERVED
from miniλ.pool.plan import Action, Admit, Assign, IdleWorker, PendingInvocation, Start, Stop, plan

# On a busy machine a slow example is no failure.
SLOW = [HealthCheck.too_slow]

NONE: Counter[str] = Counter()
PLENTY = {UNRESERVED: 100}


def invocation(
    number: int, revision: str = "a", limit: str = UNRESERVED, *, admitted: bool = True
) -> PendingInvocation:
    """Return an invocation that waits for a worker of `revision`."""
    return PendingInvocation(number, revision, limit, admitted)


def idle(worker_id: str, revision: str = "a", priority: float = 0.0) -> IdleWorker:
    """Return a worker that waits for an invocation."""
    return IdleWorker(worker_id, revision, priority)


# Cold starts


def test_nothing_happens_without_a_pending_invocation() -> None:
    """Idle workers and room are no reason to do anything."""
    assert plan([], [idle("w1")], Counter(a=1), 5, PLENTY) == []


def test_an_invocation_starts_a_worker() -> None:
    """With room and nothing warm, a cold start."""
    assert [Start(1)] == plan([invocation(1)], [], NONE, 1, PLENTY)


def test_a_starting_worker_is_not_started_twice() -> None:
    """One pending invocation causes one cold start, however often the plan is made."""
    assert plan([invocation(1)], [], Counter(a=1), 5, PLENTY) == []


def test_two_invocations_start_two_workers() -> None:
    """A starting worker is for one of them only."""
    assert [Start(2)] == plan([invocation(1), invocation(2)], [], Counter(a=1), 5, PLENTY)
    assert [Start(1), Start(2)] == plan([invocation(1), invocation(2)], [], NONE, 5, PLENTY)


def test_a_starting_worker_is_for_its_own_version() -> None:
    """A cold start of another version serves no invocation of this each."""
    assert [Start(1)] == plan([invocation(1, "b")], [], Counter(a=3), 5, PLENTY)


def test_a_starting_worker_needs_no_room() -> None:
    """The pool is full, and no worker is stopped for an invocation whose worker is starting."""
    assert plan([invocation(1)], [idle("w1", "b")], Counter(a=1), 0, PLENTY) == []


# Warm workers


def test_a_warm_worker_is_taken() -> None:
    """Nothing is started where a worker of the version is idle."""
    assert [Assign(1, "w1")] == plan([invocation(1)], [idle("w1")], NONE, 5, PLENTY)


def test_the_last_worker_in_is_the_first_out() -> None:
    """The one that was busy last is warmest; the others grow old and are ended."""
    workers = [idle("w1"), idle("w2"), idle("w3", "b")]

    assert [Assign(1, "w2"), Assign(2, "w1")] == plan(
        [invocation(1), invocation(2)], workers, NONE, 5, PLENTY
    )


def test_a_warm_worker_is_better_than_a_starting_one() -> None:
    """The invocation is served now; the starting worker is for the next each."""
    assert [Assign(1, "w1")] == plan([invocation(1)], [idle("w1")], Counter(a=1), 5, PLENTY)


def test_a_worker_of_another_version_serves_no_invocation() -> None:
    """After an update the old code is not run again."""
    assert [Start(1)] == plan([invocation(1, "a2")], [idle("w1", "a1")], NONE, 5, PLENTY)


def test_the_first_to_come_is_the_first_served() -> None:
    """One warm worker, three invocations: the one that came first gets it."""
    assert [Assign(7, "w1"), Start(8)] == plan(
        [invocation(7), invocation(8), invocation(9)], [idle("w1")], NONE, 1, PLENTY
    )


# Room


def test_without_room_and_idle_workers_all_wait() -> None:
    """All workers are busy: the next plan is made when one is not."""
    assert plan([invocation(1), invocation(2)], [], NONE, 0, PLENTY) == []


def test_room_is_given_out_once() -> None:
    """Of three invocations two fit, in the order they came."""
    assert [Start(1), Start(2)] == plan(
        [invocation(1), invocation(2), invocation(3)], [], NONE, 2, PLENTY
    )


def test_the_cheapest_idle_worker_makes_room() -> None:
    """The lowest priority is stopped, not the worker that was idle longest."""
    workers = [idle("w1", "b", 2.0), idle("w2", "c", 1.0), idle("w3", "d", 3.0)]

    assert [Stop("w2", "made room"), Start(1)] == plan([invocation(1)], workers, NONE, 0, PLENTY)


def test_no_worker_is_stopped_while_there_is_room() -> None:
    """Idle workers of other versions stay."""
    assert [Start(1)] == plan([invocation(1)], [idle("w1", "b")], NONE, 1, PLENTY)


def test_a_worker_that_a_later_invocation_needs_is_not_stopped() -> None:
    """The first finds no worker and no room; the second is served by the idle each."""
    got = plan([invocation(1, "a"), invocation(2, "b")], [idle("w1", "b")], NONE, 0, PLENTY)

    assert [Assign(2, "w1")] == got


def test_each_cold_start_beyond_the_room_ends_one_worker() -> None:
    """Two idle workers make room for two, and the third waits."""
    workers = [idle("w1", "b", 1.0), idle("w2", "b", 2.0)]

    assert [Stop("w1", "made room"), Start(1), Stop("w2", "made room"), Start(2)] == plan(
        [invocation(1), invocation(2), invocation(3)], workers, NONE, 0, PLENTY
    )


# Concurrency


def test_an_invocation_is_admitted_to_its_limit() -> None:
    """It is admitted first, and gets a worker then."""
    assert [Admit(1), Start(1)] == plan([invocation(1, admitted=False)], [], NONE, 5, {"": 1})


def test_an_admitted_invocation_is_not_admitted_again() -> None:
    """Nor does it count in the limit a second time."""
    got = plan([invocation(1), invocation(2, admitted=False)], [], NONE, 5, {UNRESERVED: 1})

    assert [Admit(2), Start(1), Start(2)] == got


def test_an_admitted_invocation_needs_no_concurrency() -> None:
    """Its limit may be used up, by itself."""
    assert [Start(1)] == plan([invocation(1)], [], NONE, 5, {UNRESERVED: 0})


def test_an_invocation_that_is_not_admitted_is_passed() -> None:
    """A limit that is used up holds back its own invocations and no others."""
    pending = [invocation(1, "a", "f", admitted=False), invocation(2, "b", admitted=False)]

    got = plan(pending, [idle("w1", "a")], NONE, 5, {"f": 0, UNRESERVED: 1})

    assert [Admit(2), Start(2)] == got


def test_a_limit_is_first_come_first_served() -> None:
    """A limit of two, three invocations: the third waits, warm worker or not."""
    pending = [invocation(n, revision, "f", admitted=False) for n, revision in enumerate("aab")]

    got = plan(pending, [idle("w1", "b")], NONE, 5, {"f": 2})

    assert [Admit(0), Admit(1), Start(0), Start(1)] == got


def test_an_unknown_limit_admits_nothing() -> None:
    """A function that was deleted meanwhile has no concurrency."""
    assert plan([invocation(1, limit="gone", admitted=False)], [], NONE, 5, PLENTY) == []


def test_a_limit_below_its_use_admits_nothing() -> None:
    """A reservation that was lowered may have less than 0 left."""
    assert plan([invocation(1, admitted=False)], [], NONE, 5, {UNRESERVED: -2}) == []


def test_an_admitted_invocation_may_still_wait() -> None:
    """Concurrency without room: it counts in its limit, and waits for a worker to end."""
    assert [Admit(1)] == plan([invocation(1, admitted=False)], [], NONE, 0, PLENTY)


# For all values

revisions = st.sampled_from("abcd")
limits = st.sampled_from(["", "f", "g"])
queues = st.lists(st.tuples(revisions, limits, st.booleans()), max_size=10).map(
    lambda rows: [PendingInvocation(number, *row) for number, row in enumerate(rows)]
)
workers_idle = st.lists(st.tuples(revisions, st.floats(0, 9)), max_size=8).map(
    lambda rows: [IdleWorker(f"w{number}", *row) for number, row in enumerate(rows)]
)
counts = st.dictionaries(revisions, st.integers(0, 3)).map(Counter)
rooms = st.integers(-2, 6)
frees = st.dictionaries(limits, st.integers(-1, 5))

anything = given(pending=queues, workers=workers_idle, starting=counts, room=rooms, free=frees)
many = settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)


def of(kind: type, actions: list[Action]) -> list[Action]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


@many
@anything
def test_a_plan_changes_no_argument(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """Values in, values out: the same plan twice."""
    before = (list(pending), list(workers), dict(starting), dict(free))

    first = plan(pending, workers, starting, room, free)

    assert before == (pending, workers, dict(starting), free)
    assert first == plan(pending, workers, starting, room, free)


@many
@anything
def test_a_worker_is_used_once(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """No worker is assigned twice, or assigned and stopped; each is of the right version."""
    actions = plan(pending, workers, starting, room, free)

    used = [action.worker_id for action in actions if isinstance(action, Assign | Stop)]
    served = [action.number for action in actions if isinstance(action, Assign | Start)]
    versions = {worker.worker_id: worker.revision for worker in workers}
    assert len(used) == len(set(used))
    assert len(served) == len(set(served))
    for action in actions:
        if isinstance(action, Assign):
            assert versions[action.worker_id] == pending[action.number].revision


@many
@anything
def test_room_is_never_exceeded(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """At no point of a plan have more workers been started than there is room for."""
    left = max(room, 0)
    for action in plan(pending, workers, starting, room, free):
        left += isinstance(action, Stop)
        left -= isinstance(action, Start)

        assert left >= 0


@many
@anything
def test_a_limit_is_never_exceeded(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """No more are admitted than the limit allows; the rest get nothing."""
    actions = plan(pending, workers, starting, room, free)

    admitted = {action.number for action in actions if isinstance(action, Admit)}
    admissions = Counter(pending[number].concurrency for number in admitted)
    assert all(count <= free.get(limit, 0) for limit, count in admissions.items())
    assert len(of(Admit, actions)) == len(admitted)
    for action in actions:
        if isinstance(action, Assign | Start):
            assert pending[action.number].admitted or action.number in admitted


@many
@anything
def test_the_first_invocation_is_served_first(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """No invocation passes another of its version and limit."""
    actions = plan(pending, workers, starting, room, free)

    for kind in (Admit, Assign, Start):
        numbers = [action.number for action in actions if isinstance(action, kind)]
        assert sorted(numbers) == numbers
    warm = {action.number for action in actions if isinstance(action, Assign)}
    admitted = {action.number for action in actions if isinstance(action, Admit)}
    waiting: set[str] = set()
    for each in pending:
        if each.admitted or each.number in admitted:
            assert not (each.number in warm and each.revision in waiting)
            if each.number not in warm:
                waiting.add(each.revision)


@many
@anything
def test_one_cold_start_for_one_invocation(
    pending: list[PendingInvocation],
    workers: list[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """After a plan was carried out, the next one is empty."""
    actions = plan(pending, workers, starting, room, free)

    admitted = {action.number for action in actions if isinstance(action, Admit)}
    assigned = {action.number for action in actions if isinstance(action, Assign)}
    used = {action.worker_id for action in actions if isinstance(action, Assign | Stop)}
    started = [pending[action.number].revision for action in actions if isinstance(action, Start)]
    again = plan(
        [
            PendingInvocation(
                each.number,
                each.revision,
                each.concurrency,
                each.admitted or each.number in admitted,
            )
            for each in pending
            if each.number not in assigned
        ],
        [worker for worker in workers if worker.worker_id not in used],
        starting + Counter(started),
        room - len(started) + len(of(Stop, actions)),
        _rest(free, pending, admitted),
    )

    assert again == []


def _rest(
    free: dict[str, int], pending: list[PendingInvocation], admitted: set[int]
) -> dict[str, int]:
    """Return what the limits have left once the admitted invocations are counted."""
    admissions = Counter(pending[number].concurrency for number in admitted)
    return {limit: count - admissions[limit] for limit, count in free.items()}
