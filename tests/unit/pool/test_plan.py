"""Tests of the plan: who gets which worker, on plain values."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.concurrency import UNRESERVED
from miniλ.pool.plan import Action, Admit, Ask, Assign, Idle, Start, Stop, plan

# On a machine that is busy with other things, slow is no finding.
SLOW = [HealthCheck.too_slow]

NOBODY: Counter[str] = Counter()
PLENTY = {UNRESERVED: 100}


def ask(number: int, revision: str = "a", share: str = UNRESERVED, *, admitted: bool = True) -> Ask:
    """Return an invocation that waits for a worker of `revision`."""
    return Ask(number, revision, share, admitted)


def idle(worker_id: str, revision: str = "a", priority: float = 0.0) -> Idle:
    """Return a worker that waits for an invocation."""
    return Idle(worker_id, revision, priority)


# Cold starts


def test_nobody_asks_and_nothing_happens() -> None:
    """Idle workers and room are no reason to do anything."""
    assert plan([], [idle("w1")], Counter(a=1), 5, PLENTY) == []


def test_an_invocation_starts_a_worker() -> None:
    """With room and nothing warm, a cold start."""
    assert [Start(1)] == plan([ask(1)], [], NOBODY, 1, PLENTY)


def test_a_worker_on_its_way_is_not_started_twice() -> None:
    """One waiting invocation causes one cold start, however often we are asked."""
    assert plan([ask(1)], [], Counter(a=1), 5, PLENTY) == []


def test_two_invocations_start_two_workers() -> None:
    """A worker on its way is for one of them only."""
    assert [Start(2)] == plan([ask(1), ask(2)], [], Counter(a=1), 5, PLENTY)
    assert [Start(1), Start(2)] == plan([ask(1), ask(2)], [], NOBODY, 5, PLENTY)


def test_a_worker_on_its_way_is_for_its_own_version() -> None:
    """A cold start of another version helps nobody."""
    assert [Start(1)] == plan([ask(1, "b")], [], Counter(a=3), 5, PLENTY)


def test_a_worker_on_its_way_needs_no_room() -> None:
    """The pool is full, and nobody is ended for an invocation whose worker is coming."""
    assert plan([ask(1)], [idle("w1", "b")], Counter(a=1), 0, PLENTY) == []


# Warm workers


def test_a_warm_worker_is_taken() -> None:
    """Nothing is started where a worker of the version is idle."""
    assert [Assign(1, "w1")] == plan([ask(1)], [idle("w1")], NOBODY, 5, PLENTY)


def test_the_last_worker_in_is_the_first_out() -> None:
    """The one that was busy last is warmest; the others grow old and are ended."""
    workers = [idle("w1"), idle("w2"), idle("w3", "b")]

    assert [Assign(1, "w2"), Assign(2, "w1")] == plan([ask(1), ask(2)], workers, NOBODY, 5, PLENTY)


def test_a_warm_worker_is_better_than_one_on_its_way() -> None:
    """The invocation is served now; what is coming is for the next one."""
    assert [Assign(1, "w1")] == plan([ask(1)], [idle("w1")], Counter(a=1), 5, PLENTY)


def test_a_worker_of_another_version_serves_nobody() -> None:
    """After an update the old code is not run again."""
    assert [Start(1)] == plan([ask(1, "a2")], [idle("w1", "a1")], NOBODY, 5, PLENTY)


def test_the_first_to_come_is_the_first_served() -> None:
    """One warm worker, three who want it: the longest waiting gets it."""
    assert [Assign(7, "w1"), Start(8)] == plan(
        [ask(7), ask(8), ask(9)], [idle("w1")], NOBODY, 1, PLENTY
    )


# Room


def test_without_room_and_idle_workers_everybody_waits() -> None:
    """All workers are busy: we are asked again when one is not."""
    assert plan([ask(1), ask(2)], [], NOBODY, 0, PLENTY) == []


def test_room_is_given_out_once() -> None:
    """Three ask, two fit, in the order they came."""
    assert [Start(1), Start(2)] == plan([ask(1), ask(2), ask(3)], [], NOBODY, 2, PLENTY)


def test_the_cheapest_idle_worker_makes_room() -> None:
    """Who is easiest to make again goes, whoever was idle longest."""
    workers = [idle("w1", "b", 2.0), idle("w2", "c", 1.0), idle("w3", "d", 3.0)]

    assert [Stop("w2", "made room"), Start(1)] == plan([ask(1)], workers, NOBODY, 0, PLENTY)


def test_nobody_is_ended_while_there_is_room() -> None:
    """Idle workers of others stay where a start needs no one's place."""
    assert [Start(1)] == plan([ask(1)], [idle("w1", "b")], NOBODY, 1, PLENTY)


def test_a_worker_that_another_in_the_queue_wants_is_not_ended() -> None:
    """The first finds no worker and no room; the second is served by the idle one."""
    got = plan([ask(1, "a"), ask(2, "b")], [idle("w1", "b")], NOBODY, 0, PLENTY)

    assert [Assign(2, "w1")] == got


def test_each_cold_start_beyond_the_room_ends_one_worker() -> None:
    """Two idle workers make room for two, and the third waits."""
    workers = [idle("w1", "b", 1.0), idle("w2", "b", 2.0)]

    assert [Stop("w1", "made room"), Start(1), Stop("w2", "made room"), Start(2)] == plan(
        [ask(1), ask(2), ask(3)], workers, NOBODY, 0, PLENTY
    )


# Concurrency


def test_who_is_admitted_counts_in_the_share() -> None:
    """An invocation is admitted first, and then looks for a worker."""
    assert [Admit(1), Start(1)] == plan([ask(1, admitted=False)], [], NOBODY, 5, {"": 1})


def test_who_was_admitted_is_not_admitted_again() -> None:
    """Nor does it take anything of what the share has left."""
    got = plan([ask(1), ask(2, admitted=False)], [], NOBODY, 5, {UNRESERVED: 1})

    assert [Admit(2), Start(1), Start(2)] == got


def test_who_was_admitted_needs_no_share() -> None:
    """What it counts in may be used up, by itself."""
    assert [Start(1)] == plan([ask(1)], [], NOBODY, 5, {UNRESERVED: 0})


def test_who_is_not_admitted_is_passed() -> None:
    """A share that is used up holds back its own and nobody else."""
    asks = [ask(1, "a", "f", admitted=False), ask(2, "b", admitted=False)]

    got = plan(asks, [idle("w1", "a")], NOBODY, 5, {"f": 0, UNRESERVED: 1})

    assert [Admit(2), Start(2)] == got


def test_a_share_is_first_come_first_served() -> None:
    """Two places, three who want them: the third waits, warm worker or not."""
    asks = [ask(n, revision, "f", admitted=False) for n, revision in enumerate("aab")]

    got = plan(asks, [idle("w1", "b")], NOBODY, 5, {"f": 2})

    assert [Admit(0), Admit(1), Start(0), Start(1)] == got


def test_a_share_nobody_knows_admits_nobody() -> None:
    """A function that was deleted meanwhile has no concurrency."""
    assert plan([ask(1, share="gone", admitted=False)], [], NOBODY, 5, PLENTY) == []


def test_a_share_that_shrank_below_its_use_admits_nobody() -> None:
    """A reservation that was lowered leaves less than nothing."""
    assert plan([ask(1, admitted=False)], [], NOBODY, 5, {UNRESERVED: -2}) == []


def test_who_is_admitted_may_still_wait() -> None:
    """Concurrency without room: counted, and asked again when a worker goes."""
    assert [Admit(1)] == plan([ask(1, admitted=False)], [], NOBODY, 0, PLENTY)


# For all values

revisions = st.sampled_from("abcd")
shares = st.sampled_from(["", "f", "g"])
queues = st.lists(st.tuples(revisions, shares, st.booleans()), max_size=10).map(
    lambda rows: [Ask(number, *row) for number, row in enumerate(rows)]
)
workers_idle = st.lists(st.tuples(revisions, st.floats(0, 9)), max_size=8).map(
    lambda rows: [Idle(f"w{number}", *row) for number, row in enumerate(rows)]
)
counts = st.dictionaries(revisions, st.integers(0, 3)).map(Counter)
rooms = st.integers(-2, 6)
frees = st.dictionaries(shares, st.integers(-1, 5))

anything = given(asks=queues, workers=workers_idle, coming=counts, room=rooms, free=frees)
many = settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)


def of(kind: type, actions: list[Action]) -> list[Action]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


@many
@anything
def test_a_plan_changes_nothing_of_what_it_was_given(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """Values in, values out: asked twice it says the same."""
    before = (list(asks), list(workers), dict(coming), dict(free))

    first = plan(asks, workers, coming, room, free)

    assert before == (asks, workers, dict(coming), free)
    assert first == plan(asks, workers, coming, room, free)


@many
@anything
def test_a_worker_is_used_once(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """Nobody is assigned twice, or assigned and ended; and each is of the right version."""
    actions = plan(asks, workers, coming, room, free)

    used = [action.worker_id for action in actions if isinstance(action, Assign | Stop)]
    served = [action.number for action in actions if isinstance(action, Assign | Start)]
    versions = {worker.worker_id: worker.revision for worker in workers}
    assert len(used) == len(set(used))
    assert len(served) == len(set(served))
    for action in actions:
        if isinstance(action, Assign):
            assert versions[action.worker_id] == asks[action.number].revision


@many
@anything
def test_room_is_never_exceeded(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """At no point of a plan have more workers been started than there is room for."""
    left = max(room, 0)
    for action in plan(asks, workers, coming, room, free):
        left += isinstance(action, Stop)
        left -= isinstance(action, Start)

        assert left >= 0


@many
@anything
def test_a_share_is_never_exceeded(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """No more are admitted than the share has left; the rest get nothing."""
    actions = plan(asks, workers, coming, room, free)

    admitted = {action.number for action in actions if isinstance(action, Admit)}
    taken = Counter(asks[number].share for number in admitted)
    assert all(count <= free.get(share, 0) for share, count in taken.items())
    assert len(of(Admit, actions)) == len(admitted)
    for action in actions:
        if isinstance(action, Assign | Start):
            assert asks[action.number].admitted or action.number in admitted


@many
@anything
def test_who_came_first_is_served_first(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """Among those of one version and one share, nobody passes another."""
    actions = plan(asks, workers, coming, room, free)

    for kind in (Admit, Assign, Start):
        numbers = [action.number for action in actions if isinstance(action, kind)]
        assert sorted(numbers) == numbers
    warm = {action.number for action in actions if isinstance(action, Assign)}
    admitted = {action.number for action in actions if isinstance(action, Admit)}
    waiting: set[str] = set()
    for one in asks:
        if one.admitted or one.number in admitted:
            assert not (one.number in warm and one.revision in waiting)
            if one.number not in warm:
                waiting.add(one.revision)


@many
@anything
def test_one_cold_start_for_one_invocation(
    asks: list[Ask],
    workers: list[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
) -> None:
    """A plan that was carried out, asked again, has nothing more to do."""
    actions = plan(asks, workers, coming, room, free)

    admitted = {action.number for action in actions if isinstance(action, Admit)}
    assigned = {action.number for action in actions if isinstance(action, Assign)}
    used = {action.worker_id for action in actions if isinstance(action, Assign | Stop)}
    started = [asks[action.number].revision for action in actions if isinstance(action, Start)]
    again = plan(
        [
            Ask(one.number, one.revision, one.share, one.admitted or one.number in admitted)
            for one in asks
            if one.number not in assigned
        ],
        [worker for worker in workers if worker.worker_id not in used],
        coming + Counter(started),
        room - len(started) + len(of(Stop, actions)),
        _rest(free, asks, admitted),
    )

    assert again == []


def _rest(free: dict[str, int], asks: list[Ask], admitted: set[int]) -> dict[str, int]:
    """Return what the shares have left once the admitted ones are counted."""
    taken = Counter(asks[number].share for number in admitted)
    return {share: count - taken[share] for share, count in free.items()}
