"""Whole histories of a few orders: whatever crashes, is lost or comes twice, the promises hold.

A seed that fails is told, and fails again. What follows the laws breaks the service in one place each, and expects the
histories to notice.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest
from fulfillment import intake, progress
from fulfillment.domain import machine
from fulfillment.domain.machine import Signal
from fulfillment.domain.model import ExternalId, Item, Key, OrderId, Payment, Purchase, State
from fulfillment.domain.planner import Planned, plan
from fulfillment.ports.supplier import CollectAnswer, InDoubt, PlaceAnswer, Refused

from tests.unit.fulfillment.history import History, run_history
from tests.unit.fulfillment.memory_orders import MailRow, MemoryTransaction

SEEDS = range(150)


@pytest.fixture(scope="module")
def histories() -> list[History]:
    return [run_history(random.Random(seed)) for seed in SEEDS]  # noqa: S311 # luck


def test_no_history_breaks_a_promise(histories: Sequence[History]) -> None:
    for seed, history in zip(SEEDS, histories, strict=True):
        assert not history.broken_promises(), f"seed {seed}"


def test_histories_are_as_bad_as_they_should_be(histories: Sequence[History]) -> None:
    states = Counter(row.state for history in histories for row in history.orders.rows.orders.values())
    reasons = {row.reason for history in histories for row in history.orders.rows.orders.values()}
    repeats = sum(count > 1 for history in histories for count in history.supplier.requests.values())
    interrupted = sum(history.mailer.interrupted.total() for history in histories)
    assert states.keys() == {State.READY, State.DELIVERED, State.NEEDS_ATTENTION}
    assert reasons == {"", "PURCHASE_REFUSED", "DUPLICATE_KEY", "KEYS_MISSING", "KEY_UNREADABLE"}
    assert sum(history.deaths for history in histories) > 5 * len(histories)
    assert repeats > len(histories)
    assert sum(history.pauses for history in histories) > len(histories) / 2
    assert interrupted > len(histories) / 10


def test_a_seed_lives_the_same_history_again() -> None:
    first, again = (run_history(random.Random(7)) for _ in range(2))  # noqa: S311 # luck
    assert first.orders.rows == again.orders.rows
    assert first.deaths == again.deaths


Break = Callable[[pytest.MonkeyPatch], None]


def derive_other_references(patch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(10**9))

    def replan(order_id: OrderId, items: Sequence[Item]) -> list[Planned]:
        number = next(numbers)
        planned = plan(order_id, items)
        return [
            Planned(ExternalId(f"{each.external_id}-{number}"), each.item_id, each.chunk, each.attempt, each.quantity)
            for each in planned
        ]

    patch.setattr(intake, "plan", replan)
    original = MemoryTransaction.add_payment

    async def add_payment(self: MemoryTransaction, payment: Payment) -> None:
        await original(self, payment)

    # As if a repeated payment were a new one.
    patch.setattr(MemoryTransaction, "add_payment", add_payment)


def take_a_doubt_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    original = progress.Progress._placed

    async def placed(
        self: progress.Progress, transaction: MemoryTransaction, purchase: Purchase, answer: PlaceAnswer, now: datetime
    ) -> Purchase:
        wrong = Refused("") if isinstance(answer, InDoubt) else answer
        return await original(self, transaction, purchase, wrong, now)

    patch.setattr(progress.Progress, "_placed", placed)


def lose_what_a_dead_worker_had(patch: pytest.MonkeyPatch) -> None:
    async def lease(self: MemoryTransaction, purchase: Purchase, *, until: datetime) -> None:
        self._change(purchase.external_id, purchase=purchase, run_at=None, lease_until=until)

    patch.setattr(MemoryTransaction, "lease", lease)


def take_short_for_complete(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "_collecting_signal", lambda *_: Signal.ALL_KEYS_SEALED)


def hide_that_a_key_is_held(patch: pytest.MonkeyPatch) -> None:
    original = progress._collecting_signal

    def signal(answer: CollectAnswer, quantity: int) -> Signal:
        told = original(answer, quantity)
        return Signal.ALL_KEYS_SEALED if told is Signal.KEY_HELD else told

    patch.setattr(progress, "_collecting_signal", signal)


def want_a_mail_for_every_key(patch: pytest.MonkeyPatch) -> None:
    async def want_mail(self: MemoryTransaction, order_id: OrderId, *, now: datetime) -> None:
        self.rows.mails[order_id] = MailRow(run_at=now)

    patch.setattr(MemoryTransaction, "want_mail", want_mail)


def forget_keys_that_came_with_others(patch: pytest.MonkeyPatch) -> None:
    original = MemoryTransaction.add_keys

    async def add_keys(self: MemoryTransaction, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        return await original(self, order_id, keys[:1])

    patch.setattr(MemoryTransaction, "add_keys", add_keys)


def give_up_at_once(patch: pytest.MonkeyPatch) -> None:
    attention = machine.TRANSITIONS[State.PURCHASING, Signal.TOO_OLD]
    broken = {**machine.TRANSITIONS, (State.PURCHASING, Signal.NO_ANSWER): attention}
    patch.setattr(machine, "TRANSITIONS", broken)


def give_up_when_buying_is_paused(patch: pytest.MonkeyPatch) -> None:
    attention = machine.TRANSITIONS[State.PURCHASING, Signal.TOO_OLD]
    broken = {**machine.TRANSITIONS, (State.PURCHASING, Signal.BUYING_PAUSED): attention}
    patch.setattr(machine, "TRANSITIONS", broken)


def commit_only_half(patch: pytest.MonkeyPatch) -> None:
    async def add_purchases(self: MemoryTransaction, *_: object, **__: object) -> None:
        """Leave the buying to a later event, which nobody sends."""

    patch.setattr(MemoryTransaction, "add_purchases", add_purchases)


@pytest.mark.parametrize(
    "break_it",
    [
        derive_other_references,
        take_a_doubt_for_a_refusal,
        lose_what_a_dead_worker_had,
        take_short_for_complete,
        hide_that_a_key_is_held,
        want_a_mail_for_every_key,
        forget_keys_that_came_with_others,
        give_up_at_once,
        give_up_when_buying_is_paused,
        commit_only_half,
    ],
)
def test_a_broken_service_is_noticed(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    assert any(is_broken(seed) for seed in range(60))


def is_broken(seed: int) -> bool:
    try:
        return bool(run_history(random.Random(seed)).broken_promises())  # noqa: S311 # luck
    except TimeoutError:
        # Some order never came to its end.
        return True
