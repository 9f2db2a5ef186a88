"""Whole histories of one purchase on a simulated clock: whatever goes wrong, it is bought at most once.

In some of them it is withdrawn meanwhile: whoever is told that it is refused may give the customer's money back. In
some the database has forgotten an attempt that was sent just before.

The real rules and use cases run against a supplier, a database and processes that fail at every step. Each history is
made by one random generator; hypothesis shrinks a failing one, and a broken guard is caught within a few seeds.
"""

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from chassis.errors import KeyferryError, ServiceUnavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.domain import guard
from kinguin_gateway.domain.guard import AnswerKind, Bounds, Lookup, Outcome, Rejected, Step
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import Intent, Problem, Purchase, PurchaseState
from kinguin_gateway.errors import PurchaseRefused
from kinguin_gateway.looking import Watcher
from kinguin_gateway.ports.purchases import Begun
from kinguin_gateway.ports.supplier import SendWindow
from kinguin_gateway.settling import Settler
from kinguin_gateway.withdrawing import Withdrawer

from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, Mood, Row
from tests.unit.simulated import simulate

HISTORIES = 10_000 if os.environ.get("KEYFERRY_PROOF") == "full" else 600
WITHDRAWAL_ID = "0d0f2a53-3b1c-4b5e-8a0e-7a5a3d2c9f10"
WINDOW = timedelta(seconds=20)
BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
PACE = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=60))
# Trouble goes on for so long; after that everything works, and the purchase has to come to its end.
TROUBLE_SECONDS = 900.0
# Both bounds, the attempt's window, the lease of a dead process, and the longest gap between two looks.
SETTLE_SECONDS = 600.0


class Died(BaseException):
    """The process is gone, in the middle of what it did."""


@dataclass
class History:
    """One purchase, one supplier, one database, and two replicas that are killed and started again."""

    luck: random.Random
    purchases: FakePurchases
    supplier: FakeSupplier
    refusals: int = 0
    placed: set[str] = field(default_factory=set)
    refused_at: float | None = None

    def trouble(self) -> bool:
        return self.supplier.clock.elapsed() < TROUBLE_SECONDS

    async def step(self, name: str) -> None:
        """Happens between any two steps of a process: a wait, a database that fails, or death."""
        if not self.trouble():
            return
        await asyncio.sleep(self.luck.choice([0, 0, 0.01, 1, 30]) * self.luck.random())
        fate = self.luck.random()
        if fate < 0.06:
            raise Died
        # An error after a commit is the answer that was lost: the effect is there.
        if fate < 0.12 and name.endswith(("open", "record")):
            raise ServiceUnavailable("the database does not answer")

    def mood(self) -> Mood:
        if not self.trouble():
            return Mood()
        luck = self.luck
        return Mood(
            stall=luck.choice([0, 0, 0, 15, 300, 900]) * luck.random(),
            connect=luck.choice([0, 0, 1, 25]) * luck.random(),
            take=luck.random() < 0.6,
            # Near the bounds is where a guard fails.
            late=luck.choice([None, None, luck.random() ** 0.2 * BOUNDS.commit.total_seconds()]),
            lag=luck.choice([0, luck.random() ** 0.2 * BOUNDS.search_lag.total_seconds()]),
            reply=luck.choice(
                [
                    None,
                    None,
                    Rejected(500, Problem("Error", "bad day")),
                    Rejected(429, Problem("Http", "too many")),
                    Rejected(409, Problem("ResourceLock", "locked")),
                ]
            ),
            answer=luck.choice([0, 5, None]),
        )

    async def buy(self) -> None:
        """One replica's caller: asks again until it knows, and starts the replica anew when it died."""
        while True:
            try:
                purchase = await self.buyer().place(INTENT, REQUEST_ID)
            except Died:
                pass
            except PurchaseRefused:
                self.refusals += 1
                return
            except KeyferryError:
                pass
            else:
                self.placed.add(purchase.supplier_order_id)
                return
            await asyncio.sleep(0.2 + self.luck.choice([1, 10, 60]) * self.luck.random())

    async def withdraw(self) -> None:
        """A caller that changed its mind, at any moment: asks again until it knows."""
        await asyncio.sleep(self.luck.choice([0, 5, 40, 500]) * self.luck.random())
        while True:
            try:
                withdrawer = Withdrawer(self.purchases, self.settler(), window=WINDOW)
                purchase = await withdrawer.withdraw(INTENT, WITHDRAWAL_ID)
            except (Died, KeyferryError):
                await asyncio.sleep(0.2 + self.luck.choice([1, 10, 60]) * self.luck.random())
                continue
            if purchase.state is PurchaseState.PLACED:
                self.placed.add(purchase.supplier_order_id)
            else:
                self.refusals += 1
                self.refused_at = self.supplier.clock.elapsed()
            return

    def forget_an_attempt(self) -> None:
        """The database was restored; an attempt that it has never heard of is, or was, on its way."""
        now = self.purchases.now()
        self.purchases.forgotten_deadline, self.purchases.caution_end = now + WINDOW, now + timedelta(days=7)
        if self.luck.random() < 0.7:
            sent = WINDOW.total_seconds() * self.luck.random()
            lag = BOUNDS.search_lag.total_seconds() * self.luck.random()
            self.supplier.receive_later(
                INTENT, Mood(late=sent + BOUNDS.commit.total_seconds() * self.luck.random(), lag=lag)
            )

    async def watch(self) -> None:
        """One replica's loop."""
        watcher = Watcher(
            self.purchases,
            self.supplier,
            self.settler(),
            pace=PACE,
            call_limit=WINDOW,
            chance=self.luck.random,
        )
        while True:
            try:
                for due in await watcher.claim(10):
                    await watcher.look(due)
            except (Died, KeyferryError):
                pass
            await asyncio.sleep(1)

    def settler(self) -> Settler:
        return Settler(self.purchases, self.supplier, bounds=BOUNDS, pace=PACE, chance=self.luck.random)

    def buyer(self) -> Buyer:
        clock = self.supplier.clock
        checker = Checker(self.supplier, clock)
        return Buyer(self.purchases, self.supplier, self.settler(), checker, clock=clock, window=WINDOW)


async def live(history: History) -> None:
    watching = [asyncio.create_task(history.watch()) for _ in range(2)]
    if history.luck.random() < 0.2:
        history.forget_an_attempt()
    withdrawals = [history.withdraw()] if history.luck.random() < 0.5 else []
    async with asyncio.timeout(TROUBLE_SECONDS + SETTLE_SECONDS):
        await asyncio.gather(history.buy(), history.buy(), *withdrawals)
    # What was on its way when everybody had their answer still arrives.
    await asyncio.sleep(BOUNDS.total.total_seconds() + 2 * WINDOW.total_seconds())
    for task in watching:
        task.cancel()


def run_history(
    luck: random.Random,
    *,
    purchases: FakePurchases | None = None,
    supplier: FakeSupplier | None = None,
) -> History:
    history = History(luck, purchases or FakePurchases(), supplier or FakeSupplier(rejects_reuse=luck.random() < 0.3))
    history.purchases.step = history.supplier.step = history.step
    history.supplier.next_mood = history.mood
    # On some days the search is down for good.
    failing = luck.choice([0.0, 0.3, 0.97])
    history.supplier.search_fails = lambda: history.trouble() and luck.random() < failing
    simulate(live(history))
    return history


def is_good(history: History) -> bool:
    bought = {order.supplier_order_id for order in history.supplier.taken}
    (row,) = history.purchases.rows.values()
    if row.last_attempt not in {None, row.purchase.attempt}:
        return False
    if history.refused_at is not None and any(sent >= history.refused_at for sent in history.supplier.sent_at):
        return False
    if history.refusals:
        return not bought and not history.placed
    return len(bought) == 1 and history.placed == bought and row.purchase.state is PurchaseState.PLACED


@settings(max_examples=HISTORIES)
@given(luck=st.randoms(use_true_random=True))
def test_no_history_buys_twice_and_none_is_stuck(luck: random.Random) -> None:
    assert is_good(run_history(luck))


def test_histories_are_as_bad_as_they_should_be() -> None:
    histories = [run_history(random.Random(seed)) for seed in range(120)]  # noqa: S311 # luck
    states = {row.purchase.state for history in histories for row in history.purchases.rows.values()}
    attempts = max(row.purchase.attempt for history in histories for row in history.purchases.rows.values())
    doubts = sum(history.purchases.audited.count("purchase.in_doubt") for history in histories)
    assert states == {PurchaseState.PLACED, PurchaseState.REFUSED}
    assert attempts > 2
    assert doubts > 20
    ends = [row.purchase.refusal.kind for history in histories for row in history.purchases.rows.values()]
    assert ends.count("withdrawn") > 5
    rows = [row for history in histories for row in history.purchases.rows.values() if row.purchase.withdrawn]
    assert any(row.purchase.state is PurchaseState.PLACED for row in rows)
    assert any(row.purchase.state is PurchaseState.REFUSED and row.last_attempt for row in rows)


# What follows breaks the guard in one place each, and expects the histories to notice.


class OpensWhatIsInDoubt(FakePurchases):
    def may_open(self, row: Row, *, is_free: bool) -> bool:
        return row.purchase.state in {PurchaseState.INTENDED, PurchaseState.IN_DOUBT} and is_free


class RefusesWhatItForgot(FakePurchases):
    def _withdraw(self, intent: Intent, request_id: str, lease: timedelta) -> Begun:
        self.rows.get(intent.external_id) or self._new(intent, request_id)
        return super()._withdraw(intent, request_id, lease)


class RefusesWhatIsInDoubt(FakePurchases):
    def withdrawal_step(self, purchase: Purchase) -> Step:
        step = super().withdrawal_step(purchase)
        return Step.REFUSE if step is Step.SETTLE else step


class TakesFailureForAbsence(FakeSupplier):
    def failed_search(self, start_time: datetime) -> Lookup:
        return Lookup(start_time, [], complete=True)


def believe_any_empty_search(patch: pytest.MonkeyPatch) -> None:
    # Both where the rule is decided and where it is written: either alone would hold.
    patch.setattr(guard, "proves_absence", lambda lookup, *_: not lookup.orders)
    patch.setattr(Bounds, "total", timedelta(days=-1))


def forget_the_search_lag(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Bounds, "total", property(lambda bounds: bounds.commit))


def send_after_the_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SendWindow, "seconds_left", lambda _self: 1e6)


def take_a_5xx_for_unsent(patch: pytest.MonkeyPatch) -> None:
    outcomes = {**guard.OUTCOMES, AnswerKind.SERVER_FAULT: Outcome.REFUSED}
    patch.setattr(guard, "OUTCOMES", outcomes)


def forget_the_withdrawal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guard, "NEXT_STEP_WITHDRAWN", {**guard.NEXT_STEP, PurchaseState.INTENDED: Step.SEND})


def nothing(_patch: pytest.MonkeyPatch) -> None:
    """The rules stay; one of the parts is broken."""


@pytest.mark.parametrize(
    ("break_rules", "purchases", "supplier"),
    [
        (believe_any_empty_search, FakePurchases, FakeSupplier),
        (forget_the_search_lag, FakePurchases, FakeSupplier),
        (send_after_the_deadline, FakePurchases, FakeSupplier),
        (take_a_5xx_for_unsent, FakePurchases, FakeSupplier),
        (forget_the_withdrawal, FakePurchases, FakeSupplier),
        (nothing, OpensWhatIsInDoubt, FakeSupplier),
        (nothing, RefusesWhatIsInDoubt, FakeSupplier),
        (nothing, RefusesWhatItForgot, FakeSupplier),
        (nothing, FakePurchases, TakesFailureForAbsence),
    ],
)
def test_a_broken_guard_is_noticed(
    break_rules: Callable[[pytest.MonkeyPatch], None],
    purchases: type[FakePurchases],
    supplier: type[FakeSupplier],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_rules(monkeypatch)
    assert any(
        not is_good(run_history(random.Random(seed), purchases=purchases(), supplier=supplier()))  # noqa: S311 # luck
        for seed in range(1500)
    )
