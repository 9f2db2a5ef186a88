"""Six suppliers that nobody wishes for, each on a simulated clock: no line is ever bought twice, no doubt stays.

A caller derives its references as fulfillment's planner does: a further one exists only after a refusal. What counts is
therefore the number of keys bought for the *line*, over all of its references. KEYFERRY_PROOF=full lives many more
histories.
"""

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from chassis.errors import KeyferryError
from chassis.secret import SecretBytes
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.collecting import Collector
from kinguin_gateway.domain import guard
from kinguin_gateway.domain.guard import WITHDRAWAL, Rejected, Step
from kinguin_gateway.domain.purchase import (
    Intent,
    OrderKey,
    Problem,
    PurchaseState,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.errors import PurchaseRefused
from kinguin_gateway.looking import Watcher
from kinguin_gateway.ports.supplier import SuppliedKey
from kinguin_gateway.settling import Settler
from kinguin_gateway.withdrawing import Withdrawer

from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, FakeVault, Mood
from tests.unit.kinguin_gateway.test_histories import BOUNDS, PACE, TROUBLE_SECONDS, WINDOW, Died
from tests.unit.simulated import simulate

SEEDS = 1000 if os.environ.get("KEYFERRY_PROOF") == "full" else 80
# The last attempt of the bad time may be sent at its very end; its doubt lasts both bounds, and is seen soon after.
QUIET_SECONDS = WINDOW.total_seconds() + BOUNDS.total.total_seconds() + 60
MOST_REFERENCES = 3


class Model(FakeSupplier):
    """What all six have in common: lost answers, resets, 5xx, refusals, and a search that is down at times."""

    rejects = False

    def __init__(self, luck: random.Random) -> None:
        super().__init__(rejects_reuse=self.rejects)
        self.luck = luck
        self.next_mood = self.mood
        self.search_fails = lambda: self.trouble() and luck.random() < 0.3

    def trouble(self) -> bool:
        return self.clock.elapsed() < TROUBLE_SECONDS

    def mood(self) -> Mood:
        if not self.trouble():
            return Mood()
        luck = self.luck
        return Mood(
            stall=luck.choice([0, 0, 0, 30, 600]) * luck.random(),
            take=luck.random() < 0.7,
            late=self.late(),
            lag=self.lag(),
            reply=luck.choice([None, None, Rejected(500, Problem("Error")), Rejected(409, Problem("ResourceLock"))]),
            answer=luck.choice([0, 5, None]),
        )

    def late(self) -> float | None:
        return self.luck.choice([None, None, 30 * self.luck.random()])

    def lag(self) -> float:
        return self.luck.choice([0, 10 * self.luck.random()])

    def deliver(self) -> None:
        """Deliver every order that was taken, in the way of the model."""
        for order in self.taken:
            if order.supplier_order_id not in self.keys:
                self._deliver(order, order.quantity or 0)

    def _deliver(self, order: SupplierOrder, count: int) -> None:
        number = order.supplier_order_id
        self.keys[number] = [
            SuppliedKey(f"{number}-{n}", INTENT.product_id, "text/plain", SecretBytes(self.serial(number, n)))
            for n in range(count)
        ]
        states = [SupplierKeyState.DELIVERED] * count
        states += [SupplierKeyState.CANCELED] * ((order.quantity or 0) - count)
        keys = [OrderKey(f"{number}-{n}", state) for n, state in enumerate(states)]
        line = replace(order.lines[0], delivered=count, keys=keys)
        ended = SupplierOrderState.COMPLETED if count == order.quantity else SupplierOrderState.CANCELED
        self.show(replace(order, lines=[line], state=ended))

    def serial(self, number: str, n: int) -> bytes:
        return f"{number}/{n}".encode()


class RejectsReuse(Model):
    rejects = True


class AcceptsReuse(Model):
    pass


class CommitsLate(Model):
    """Takes an order up to the bound after we gave up."""

    def late(self) -> float | None:
        return float(self.luck.random() ** 0.2 * BOUNDS.commit.total_seconds())


class SearchLags(Model):
    """Shows an order up to the bound after it took it."""

    def lag(self) -> float:
        return float(self.luck.random() ** 0.2 * BOUNDS.search_lag.total_seconds())


class Flaps(Model):
    """States come and go, and no webhook tells."""

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        order = await super().read_order(supplier_order_id)
        if order is None or not self.trouble():
            return order
        return self.luck.choice([order, replace(order, state=SupplierOrderState.PROCESSING), None])


class DeliversBadly(Model):
    """Pages are short, long and overlap, serials come twice, and some orders are canceled after a part."""

    def deliver(self) -> None:
        self.page_size = self.luck.choice([1, 2, 100])
        for order in self.taken:
            if order.supplier_order_id not in self.keys:
                self._deliver(order, self.luck.choice([order.quantity or 0, self.luck.randint(0, order.quantity or 0)]))

    def serial(self, number: str, n: int) -> bytes:
        return f"{number}/{n % 2}".encode()

    def page_of(self, keys: Sequence[SuppliedKey], number: int) -> Sequence[SuppliedKey]:
        first = (number - 1) * self.page_size
        overlap = self.luck.choice([0, 0, 1]) if self.trouble() else 0
        return keys[max(0, first - overlap) : first + self.page_size] if first < len(keys) else ()


MODELS = [RejectsReuse, AcceptsReuse, CommitsLate, SearchLags, Flaps, DeliversBadly]


@dataclass
class Life:
    """One line of an order, bought by a caller that does not give up, through two replicas that die."""

    supplier: Model
    luck: random.Random
    purchases: FakePurchases = field(default_factory=FakePurchases)
    vault: FakeVault = field(default_factory=FakeVault)
    quantity: int = INTENT.quantity
    references: int = 1
    placed: bool = False
    withdrawn: str = ""

    def __post_init__(self) -> None:
        self.purchases.step = self.supplier.step = self.step

    async def step(self, name: str) -> None:
        if not self.supplier.trouble():
            return
        await asyncio.sleep(self.luck.choice([0, 0, 0.01, 20]) * self.luck.random())
        if self.luck.random() < 0.05:
            raise Died(name)

    def intent(self, reference: int = 0) -> Intent:
        return replace(INTENT, external_id=f"kf-{reference or self.references}", quantity=self.quantity)

    def replica(self) -> Buyer:
        clock = self.supplier.clock
        return Buyer(
            self.purchases, self.supplier, self.settler(), Checker(self.supplier, clock), clock=clock, window=WINDOW
        )

    def settler(self) -> Settler:
        return Settler(self.purchases, self.supplier, bounds=BOUNDS, pace=PACE, chance=self.luck.random)

    async def buy(self) -> None:
        """Two of these ask at once; each goes on to a further reference only when its own question was refused."""
        reference = 1
        while reference <= MOST_REFERENCES:
            try:
                await self.replica().place(self.intent(reference), f"{REQUEST_ID[:-1]}{reference}")
            except PurchaseRefused as refused:
                if refused.metadata["kind"] == WITHDRAWAL.kind:
                    return
                reference += 1
                self.references = max(self.references, min(reference, MOST_REFERENCES))
            except (Died, KeyferryError):
                await asyncio.sleep(0.5 + 20 * self.luck.random())
            else:
                self.placed = True
                return

    async def withdraw(self) -> None:
        """Somebody cancels the order: each reference that was used is withdrawn until one answers for all."""
        await asyncio.sleep(self.luck.choice([0, 2, 60, 600]) * self.luck.random())
        reference = 1
        while reference <= MOST_REFERENCES:
            withdrawer = Withdrawer(self.purchases, self.settler(), window=WINDOW)
            try:
                purchase = await withdrawer.withdraw(self.intent(reference), f"{REQUEST_ID[:-2]}2{reference}")
            except (Died, KeyferryError):
                await asyncio.sleep(0.5 + 20 * self.luck.random())
                continue
            if purchase.state is PurchaseState.PLACED:
                return
            if purchase.refusal == WITHDRAWAL:
                self.withdrawn = purchase.intent.external_id
                return
            reference += 1

    async def watch(self) -> None:
        while True:
            watcher = Watcher(
                self.purchases,
                self.supplier,
                self.settler(),
                pace=PACE,
                call_limit=WINDOW,
                chance=self.luck.random,
            )
            try:
                for due in await watcher.claim(10):
                    await watcher.look(due)
                for due in await self.settler().claim_to_verify(10):
                    await self.settler().verify(due)
            except (Died, KeyferryError):
                pass
            await asyncio.sleep(1)

    async def collect(self) -> None:
        collector = Collector(self.purchases, self.supplier, self.vault)
        while True:
            self.supplier.deliver()
            with suppress(Died, KeyferryError):
                await collector.collect(
                    self.intent().external_id, customer_id="alice", request_id=REQUEST_ID, digest=b"1"
                )
            await asyncio.sleep(1 + 30 * self.luck.random())

    async def live(self) -> None:
        works = [self.buy, self.buy, self.watch, self.watch, self.collect]
        if self.luck.random() < 0.3:
            works.append(self.withdraw)
        tasks = [asyncio.create_task(work()) for work in works]
        await asyncio.sleep(TROUBLE_SECONDS + QUIET_SECONDS)
        self.check_doubts()
        await asyncio.sleep(QUIET_SECONDS)
        for task in tasks:
            task.cancel()

    def check_doubts(self) -> None:
        doubtful = [row for row in self.purchases.rows.values() if row.purchase.state is PurchaseState.IN_DOUBT]
        assert not doubtful, "a doubt was not settled in time"

    def bought(self) -> int:
        return sum(order.quantity or 0 for order in self.supplier.taken)


def a_life(model: type[Model], seed: int) -> Life:
    luck = random.Random(seed)  # noqa: S311 # luck
    life = Life(model(luck), luck)
    simulate(life.live())
    return life


@pytest.mark.parametrize("model", MODELS)
def test_no_line_is_bought_twice_and_no_doubt_stays(model: type[Model]) -> None:
    for seed in range(SEEDS):
        life = a_life(model, seed)
        assert life.bought() <= life.quantity, f"{model.__name__}, seed {seed}: bought twice"
        rows = life.purchases.rows.values()
        tried_again = [row for row in rows if row.last_attempt not in {None, row.purchase.attempt}]
        assert not tried_again, f"{model.__name__}, seed {seed}: an attempt was opened after a withdrawal"
        if life.withdrawn:
            assert life.bought() == 0, f"{model.__name__}, seed {seed}: bought and withdrawn"
            continue
        if any(row.purchase.state is PurchaseState.PLACED for row in rows):
            life.placed = True
        if life.placed:
            assert life.bought() == life.quantity, f"{model.__name__}, seed {seed}"
            (order,) = life.supplier.taken
            delivered = {key.supplier_key_id for key in life.supplier.keys[order.supplier_order_id]}
            sealed = {ref.rpartition(":")[2] for ref in life.vault.sealed}
            assert sealed == delivered, f"{model.__name__}, seed {seed}: a key was lost"
        else:
            assert life.bought() == 0, f"{model.__name__}, seed {seed}: bought and refused"


def test_the_models_are_as_bad_as_they_should_be() -> None:
    lives = [a_life(model, seed) for model in MODELS for seed in range(60)]
    assert sum(life.placed for life in lives) > len(lives) / 2
    assert sum(bool(life.withdrawn) for life in lives) > 5
    assert sum(life.references > 1 for life in lives) > 10
    attempts = [row.purchase.attempt for life in lives for row in life.purchases.rows.values()]
    assert max(attempts) > 2
    doubts = sum(life.purchases.audited.count("purchase.in_doubt") for life in lives)
    assert doubts > 40


def drop_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kinguin_gateway.collecting._is_of", lambda *_: False)


def open_the_next_reference_on_a_doubt(patch: pytest.MonkeyPatch) -> None:
    refused = PurchaseRefused.of(Problem("nobody knows"))
    patch.setattr("kinguin_gateway.errors.PurchaseInDoubt.until", lambda _wait: refused)


def believe_any_empty_search(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kinguin_gateway.domain.guard.proves_absence", lambda lookup, *_: not lookup.orders)
    patch.setattr("kinguin_gateway.domain.guard.Bounds.total", timedelta(days=-1))


def forget_the_withdrawal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guard, "NEXT_STEP_WITHDRAWN", {**guard.NEXT_STEP, PurchaseState.INTENDED: Step.SEND})


@pytest.mark.parametrize(
    "break_rules",
    [drop_keys, open_the_next_reference_on_a_doubt, believe_any_empty_search, forget_the_withdrawal],
)
def test_what_is_broken_is_noticed(
    break_rules: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rules(monkeypatch)
    with pytest.raises(AssertionError):
        test_no_line_is_bought_twice_and_no_doubt_stays(AcceptsReuse)


def test_of_two_orders_the_kept_one_is_collected_and_the_other_is_to_be_given_back() -> None:
    """Somebody outside of every guard buys under our reference; a later search notices."""

    async def live() -> Life:
        luck = random.Random(1)  # noqa: S311 # luck
        life = Life(AcceptsReuse(luck), luck)
        life.supplier.next_mood = lambda: Mood(answer=None)
        buying = asyncio.create_task(life.buy())
        watching = asyncio.create_task(life.watch())
        await asyncio.sleep(TROUBLE_SECONDS)
        (first,) = life.supplier.taken
        twin = replace(first, supplier_order_id="PHSTWIN", create_time=life.supplier.clock.now() + timedelta(1))
        life.supplier.taken.append(twin)
        life.supplier.visible_at["PHSTWIN"] = 0.0
        row = life.purchases.rows[life.intent().external_id]
        row.verify_time = life.supplier.clock.now()
        await asyncio.sleep(120)
        for task in (buying, watching):
            task.cancel()
        assert life.purchases.surplus == {"PHSTWIN": life.intent().external_id}
        assert row.purchase.supplier_order_id == first.supplier_order_id
        assert row.verify_time is None
        return life

    assert simulate(live()).placed


def test_an_order_that_is_found_after_another_was_written_down_is_to_be_given_back() -> None:
    """Two replicas at one doubt: one adopts the first order, the other, with an older row, finds a second."""

    async def live() -> Life:
        luck = random.Random(1)  # noqa: S311 # luck
        life = Life(AcceptsReuse(luck), luck)
        life.supplier.trouble = bool  # type: ignore[method-assign] # a quiet day
        life.supplier.next_mood = lambda: Mood(answer=None, lag=50)
        with suppress(KeyferryError):
            await life.replica().place(life.intent(), REQUEST_ID)
        row = life.purchases.rows[life.intent().external_id]
        (first,) = life.supplier.taken
        stale = row.purchase
        await life.purchases.record_taken(stale, first, adopted=True, look=timedelta(0))
        second = replace(first, supplier_order_id="PHSSECOND")
        life.supplier.taken, life.supplier.visible_at = [second], {"PHSSECOND": 0.0}
        after = await life.settler().settle(stale, life.supplier.clock.now())
        assert after.supplier_order_id == first.supplier_order_id
        assert life.purchases.surplus == {"PHSSECOND": life.intent().external_id}
        return life

    simulate(live())
