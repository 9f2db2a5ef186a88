"""One history: a shop, a few orders, two replicas that die, and everything around them failing. All on simulated time.

The real rules, intake, progress and mailing run; the database, kinguin-gateway and the mail server are in memory.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
from chassis.errors import ServiceUnavailable
from fulfillment import intake, mailing, progress
from fulfillment.domain.machine import IllegalSignal
from fulfillment.domain.model import ExternalId, KeyId, Order, OrderId, Purchase, State
from fulfillment.intake import Intake
from fulfillment.mailing import Letters, Mailing
from fulfillment.ports.mail import Letter, MailDelayed, MailDue, MailRefused
from fulfillment.ports.supplier import (
    Buying,
    Claimed,
    CollectAnswer,
    InDoubt,
    NoAnswer,
    Paused,
    PlaceAnswer,
    Refused,
    Unreadable,
)
from fulfillment.progress import ACT_SECONDS, Progress
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentAccepted

from tests.unit.fulfillment.examples import a_payment, an_order
from tests.unit.fulfillment.fakes import FakeSupplier, collected, key_ids
from tests.unit.fulfillment.memory_orders import MemoryOrders, MemoryTransaction, PurchaseRow
from tests.unit.simulated import SimulatedClock, simulate

# Trouble goes on for so long; after that everything works, and every order has to come to its end.
TROUBLE_SECONDS = 90.0
# The longest wait that grew up in the trouble, the lease of a dead worker, and the supplier's own pace.
SETTLE_SECONDS = 1200.0
ENDS = {State.READY, State.DELIVERED, State.NEEDS_ATTENTION}
FATES = ["sold"] * 8 + ["refused", "held", "short", "unreadable"]


class Died(BaseException):
    """The process is gone, in the middle of what it did."""


@dataclass
class TroubledSupplier(FakeSupplier):
    """Kinguin-gateway on bad days: answers are lost, doubts settle late, keys come one by one, or not at all."""

    history: "History" = field(default=None, repr=False)  # type: ignore[assignment] # set by the history itself
    requests: Counter[ExternalId] = field(default_factory=Counter)

    async def place(self, buying: Buying) -> PlaceAnswer:
        purchase, luck = buying.purchase, self.history.luck
        self.requests[purchase.external_id] += 1
        await self.history.call()
        if self.history.fate(purchase) == "refused":
            return Refused("ProductUnavailable")
        if self.history.trouble() and luck.random() < 0.2:
            return NoAnswer()
        if self.history.trouble() and purchase.external_id not in self.sold and luck.random() < 0.2:
            self.history.pauses += 1
            return luck.choice([Paused(None), Paused(self.history.a_while())])
        answer = self.sell(purchase)
        await self.history.call()
        if self.history.trouble() and luck.random() < 0.3:
            unclear: list[PlaceAnswer] = [NoAnswer(), InDoubt(None), InDoubt(self.history.a_while())]
            return luck.choice(unclear)
        return answer

    async def collect(self, buying: Buying) -> CollectAnswer:
        purchase, luck = buying.purchase, self.history.luck
        assert purchase.external_id in self.sold, "collected before it was bought"
        await self.history.call()
        if self.history.trouble() and luck.random() < 0.3:
            return NoAnswer()
        match self.history.fate(purchase):
            case "unreadable":
                return Unreadable()
            case "short":
                return collected(purchase, purchase.quantity - 1, ended=True)
            case "held":
                return collected(purchase, purchase.quantity, held=1)
        arrived = luck.randint(0, purchase.quantity) if self.history.trouble() else purchase.quantity
        return collected(purchase, arrived, more=arrived < purchase.quantity and luck.random() < 0.1)


@dataclass
class TroubledMailer:
    """A mail server that is away, says not now, or takes a letter and loses its answer."""

    history: "History"
    taken: Counter[str] = field(default_factory=Counter)
    interrupted: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)

    async def send(self, letter: Letter) -> None:
        luck = self.history.luck
        if self.history.trouble() and luck.random() < 0.3:
            raise MailDelayed("away")
        if luck.random() < 0.02:
            self.refused.add(letter.message_id)
            raise MailRefused("550")
        self.taken[letter.message_id] += 1
        await self.history.call()
        if self.history.trouble() and luck.random() < 0.2:
            raise MailDelayed("answer lost")


@dataclass
class History:
    luck: random.Random
    orders: MemoryOrders = field(default_factory=MemoryOrders)
    placed: dict[OrderId, Order] = field(default_factory=dict)
    supplier: TroubledSupplier = field(default_factory=TroubledSupplier)
    illegal: list[str] = field(default_factory=list)
    deaths: int = 0
    pauses: int = 0
    clock: SimulatedClock = field(default_factory=SimulatedClock)

    def __post_init__(self) -> None:
        self.supplier.history = self
        self.mailer = TroubledMailer(self)
        self.letters = Letters("https://shop.example")
        self.orders.step = self.step
        self._fates: dict[ExternalId, str] = {}
        for number in range(self.luck.randint(1, 3)):
            quantities = [self.luck.choice([1, 2, 9, 10, 20]) for _ in range(self.luck.randint(1, 2))]
            order = an_order(f"order-{number}", *quantities)
            self.placed[order.order_id] = order

    def trouble(self) -> bool:
        return self.clock.elapsed() < TROUBLE_SECONDS

    def fate(self, purchase: Purchase) -> str:
        return self._fates.setdefault(purchase.external_id, self.luck.choice(FATES))

    def a_while(self) -> timedelta:
        return timedelta(seconds=self.luck.random() * 30)

    async def step(self, name: str) -> None:
        """Happens at every failpoint and around every commit: a wait, a database that fails, or death."""
        await asyncio.sleep(0)
        if not self.trouble():
            return
        fate = self.luck.random()
        if fate < 0.03:
            self.deaths += 1
            raise Died
        if fate < 0.06 and name.endswith("commit"):
            # After the commit it is the answer that was lost: the effect is there.
            raise ServiceUnavailable("the database does not answer")
        if fate < 0.15:
            await asyncio.sleep(self.luck.random())

    async def call(self) -> None:
        """Take the time of a call; now and then longer than a lease."""
        if self.trouble():
            await self.step("call")
            await asyncio.sleep(self.luck.choice([0, 0, 0, 0.2, 5, 40]) * self.luck.random())

    # The shop.

    async def shop(self, order: Order) -> None:
        """Tell order and payment in any order, again and again, until the payment is accepted."""
        payment = a_payment(order_id=order.order_id, payment_id=f"payment-of-{order.order_id}")
        tellings = 0
        while not any(told.order_id == order.order_id for told in self.orders.told(FulfillmentAccepted)):
            tellings += 1
            event_id = f"{order.order_id}/{self.luck.choice([1, tellings])}"
            parts = self.luck.sample(["order", "payment"], 2)
            if self.luck.random() < 0.3:
                parts = parts[:1]
            for part in parts:

                async def take(transaction: MemoryTransaction, part: str = part, event_id: str = event_id) -> None:
                    desk = Intake(self.clock)
                    if part == "order":
                        await desk.take_order(transaction, order, order.order_id.encode())
                    else:
                        await desk.take_payment(transaction, payment, telling=event_id)

                await self.consume(f"{event_id}/{part}", take)
            await asyncio.sleep(self.luck.random() * 5)

    async def owner(self, order: Order) -> None:
        """Open keys as they come, each perhaps more than once."""
        opened: list[KeyId] = []
        while len(opened) < self.luck.randint(1, 60):
            await asyncio.sleep(self.luck.random() * 20)
            keys = [row.key for row in self.orders.rows.keys.values() if row.order_id == order.order_id]
            key_id = next((key.key_id for key in keys if not key.held and key.key_id not in opened), None)
            if key_id is None:
                continue
            opened.append(key_id)
            worker = Progress(self.orders, self.supplier, clock=self.clock)
            for number in range(self.luck.randint(1, 2)):
                await self.consume(f"{key_id}/{number}", partial(worker.key_opened, key_id=key_id))

    async def hints(self) -> None:
        """Tell now and then that something changed at the supplier; it need not be true."""
        while self.trouble():
            await asyncio.sleep(self.luck.random() * 10)
            known = list(self.orders.rows.purchases)
            if known:
                hasten = partial(MemoryTransaction.hasten, external_id=self.luck.choice(known), now=self.clock.now())
                await self.consume(f"hint-{self.clock.elapsed()}", hasten)

    async def consume(self, event_id: str, handle: Callable[[MemoryTransaction], Awaitable[object]]) -> None:
        """Deliver an event as JetStream does: until it is acknowledged, and perhaps once more."""
        while True:
            with suppress(Died, ServiceUnavailable):
                async with self.orders.transaction() as transaction:
                    if event_id not in transaction.rows.inbox:
                        transaction.rows.inbox[event_id] = None
                        await handle(transaction)
                if self.luck.random() < 0.9:
                    return
            await asyncio.sleep(1)

    # The replicas.

    async def replica(self) -> None:
        """Live, die with everything under way, and live again."""
        while True:
            worker = Progress(self.orders, self.supplier, clock=self.clock, chance=self.luck.random)
            post = Mailing(self.orders, self.mailer, self.letters, clock=self.clock, chance=self.luck.random)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.buy(worker, group))
                    group.create_task(self.mail(post))
            except* Died:
                pass
            await asyncio.sleep(self.luck.random() * 3)

    async def buy(self, worker: Progress, group: asyncio.TaskGroup) -> None:
        while True:
            claimed: Sequence[Claimed] = []
            with suppress(ServiceUnavailable):
                claimed = await worker.claim(self.luck.randint(1, 8))
            for each in claimed:
                group.create_task(self.act(worker, each))
            if not claimed:
                await asyncio.sleep(0.2 + self.luck.random() * 2)

    async def act(self, worker: Progress, claimed: Claimed) -> None:
        extending = asyncio.create_task(self.extend(worker, claimed))
        try:
            async with asyncio.timeout(ACT_SECONDS):
                await worker.act(claimed)
        except (ServiceUnavailable, TimeoutError):
            pass
        except (IllegalSignal, LookupError) as error:
            self.illegal.append(repr(error))
        finally:
            extending.cancel()

    async def extend(self, worker: Progress, claimed: Claimed) -> None:
        # Some processes are stopped for longer than their leases.
        is_stopped = self.luck.random() < 0.3
        while not is_stopped:
            await asyncio.sleep(4)
            with suppress(ServiceUnavailable, Died):
                await worker.extend([claimed])

    async def mail(self, post: Mailing) -> None:
        while True:
            with suppress(ServiceUnavailable):
                for due in await post.claim(4):
                    await self.send(post, due)
            await asyncio.sleep(0.2 + self.luck.random() * 2)

    async def send(self, post: Mailing, due: MailDue) -> None:
        message_id = self.letters.message_id(due.order_id)
        before = self.mailer.taken[message_id]
        try:
            await post.send(due)
        finally:
            noted = self.orders.rows.mails[due.order_id].send_time is not None
            if self.mailer.taken[message_id] > before and not noted:
                # Taken, and nobody knows: only this may make a copy.
                self.mailer.interrupted[message_id] += 1

    async def live(self) -> None:
        living = [asyncio.create_task(work) for work in (self.replica(), self.replica(), self.hints())]
        opening = [asyncio.create_task(self.owner(order)) for order in self.placed.values()]
        async with asyncio.timeout(TROUBLE_SECONDS + SETTLE_SECONDS):
            await asyncio.gather(*(self.shop(order) for order in self.placed.values()))
            while not self.is_over():  # noqa: ASYNC110 # rows set no event
                await asyncio.sleep(5)
        # What is still under way somewhere must change nothing.
        await asyncio.sleep(ACT_SECONDS)
        for task in [*living, *opening]:
            task.cancel()

    def is_over(self) -> bool:
        rows = self.orders.rows
        return (
            all(row.purchase.state in ENDS for row in rows.purchases.values())
            and all(row.state in ENDS for row in rows.orders.values())
            and all(row.run_at is None for row in rows.mails.values())
        )

    # What must hold at the end.

    def broken_promises(self) -> list[str]:
        """Name everything that went wrong."""
        broken = [*self.illegal]
        for order in self.placed.values():
            broken += self._broken_of(order)
        for row in self.orders.rows.purchases.values():
            broken += self._broken_of_purchase(row)
        if set(self.supplier.sold) - set(self.orders.rows.purchases):
            broken.append("sold what nobody ordered")
        return broken

    def _broken_of(self, order: Order) -> list[str]:
        rows = self.orders.rows
        own = [row.purchase for row in rows.purchases.values() if row.purchase.order_id == order.order_id]
        bought, ordered = Counter[str](), {item.item_id: item.quantity for item in order.items}
        for purchase in own:
            bought[purchase.item_id] += purchase.quantity
        broken = [] if bought == ordered else [f"{order.order_id}: planned {bought}, ordered {ordered}"]
        state, causes = rows.orders[order.order_id].state, {self.fate(purchase) for purchase in own} - {"sold"}
        if causes and (state is not State.NEEDS_ATTENTION or not rows.orders[order.order_id].reason):
            broken.append(f"{order.order_id}: {state} in spite of {causes}")
        if not causes and state not in {State.READY, State.DELIVERED}:
            broken.append(f"{order.order_id}: {state} for no reason")
        return broken + self._broken_of_mail(order.order_id)

    def _broken_of_mail(self, order_id: OrderId) -> list[str]:
        message_id, rows = self.letters.message_id(order_id), self.orders.rows
        openable = any(row.order_id == order_id and not row.key.held for row in rows.keys.values())
        taken = self.mailer.taken[message_id]
        if not openable:
            return [f"{order_id}: a mail about nothing"] if taken else []
        if message_id in self.mailer.refused:
            return []
        mail_time = rows.orders[order_id].mail_time
        broken = [] if taken and mail_time else [f"{order_id}: no mail"]
        if taken > 1 + self.mailer.interrupted[message_id]:
            broken.append(f"{order_id}: {taken} mails")
        return broken

    def _broken_of_purchase(self, row: PurchaseRow) -> list[str]:
        purchase, fate, broken = row.purchase, self.fate(row.purchase), list[str]()
        if (purchase.external_id in self.supplier.sold) == (fate == "refused"):
            broken.append(f"{purchase.external_id}: {fate}, but sold is another story")
        if row.run_at is not None:
            broken.append(f"{purchase.external_id}: still to be looked at")
        known = [key_id for key_id, key in self.orders.rows.keys.items() if key.key.external_id == purchase.external_id]
        expected = {"refused": 0, "unreadable": 0, "short": purchase.quantity - 1}.get(fate, purchase.quantity)
        if sorted(known) != sorted(key_ids(purchase)[:expected]):
            broken.append(f"{purchase.external_id}: {len(known)} keys are known of {expected}")
        return broken


def run_history(luck: random.Random, make: Callable[[random.Random], History] = History) -> History:
    """Live one history to its end."""
    with pytest.MonkeyPatch.context() as patch:

        async def run() -> History:
            history = make(luck)
            for module in (intake, progress, mailing):
                patch.setattr(module, "failpoint", history.step)
            await history.live()
            return history

        return simulate(run())
