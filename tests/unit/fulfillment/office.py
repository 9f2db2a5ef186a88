"""Fulfillment put together over rows in memory: what every test of a use case begins with."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

from fulfillment.buying import Buyer
from fulfillment.collecting import KeyCollector, Openings
from fulfillment.domain.model import (
    Amount,
    Fulfillment,
    ItemId,
    Key,
    KeyId,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    Refund,
    RefundRequest,
    State,
)
from fulfillment.domain.policy import Policy
from fulfillment.giving_up import GivingUp
from fulfillment.intake import Intake
from fulfillment.moving import Mover
from fulfillment.operating import Asked, Operating
from fulfillment.ports.supplier import Claimed
from fulfillment.products import Products
from fulfillment.progress import Progress
from fulfillment.taking_back import Taker
from fulfillment.working import Bench
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentCanceled, FulfillmentRefundRequested
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.examples import DIGEST, NOON, HandClock, a_payment, an_order
from tests.unit.fulfillment.fakes import FakeSupplier, FakeVault
from tests.unit.fulfillment.memory_orders import MemoryOrders

ORDER_ID = OrderId("order-1")
CAROL = Asked(actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol"), "the customer asked")
# Past it, nothing that still moves would be anything but a circle.
MOST_ROUNDS = 400


def a_refund(cents: int = 1000, *, refund_id: str = "refund-1", **changes: object) -> Refund:
    refund = Refund("stripe", refund_id, "payment-1", Amount("EUR", cents), NOON)
    return replace(refund, **changes)  # type: ignore[arg-type] # fields by name


class Office:
    """Every use case over one set of rows; each call is a transaction of its own, as from a handler."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.orders, self.clock = MemoryOrders(), HandClock()
        self.supplier, self.vault = FakeSupplier(), FakeVault()
        mover = Mover(policy or Policy(), chance=lambda: 0.5)
        giving_up = GivingUp(mover)
        self.bench = Bench(self.orders, mover, self.clock)
        self.products = Products(self.supplier, self.clock)
        self.intake = Intake(giving_up, self.clock)
        self.openings = Openings(mover, self.clock)
        self.operating = Operating(self.orders, mover, giving_up, self.supplier, self.vault, clock=self.clock)
        self.progress = self.worker()

    def worker(self) -> Progress:
        """Put another replica's worker together, over the same rows."""
        return Progress(
            self.bench,
            Buyer(self.bench, self.supplier, self.products),
            KeyCollector(self.bench, self.supplier, self.vault),
            Taker(self.bench, self.supplier, self.vault),
        )

    async def order(self, order: Order | None = None, digest: bytes = DIGEST) -> Fulfillment:
        async with self.orders.transaction() as transaction:
            return await self.intake.take_order(transaction, order or an_order(), digest)

    async def pay(self, payment: Payment | None = None, *, telling: str = "event-1") -> Fulfillment | None:
        async with self.orders.transaction() as transaction:
            return await self.intake.take_payment(transaction, payment or a_payment(), telling=telling)

    async def refund(self, refund: Refund | None = None, *, telling: str = "event-1") -> Fulfillment | None:
        async with self.orders.transaction() as transaction:
            return await self.intake.take_refund(transaction, refund or a_refund(), telling=telling)

    async def buy(self, *quantities: int) -> None:
        """Take an order of such lines with its payment, which is due to be bought then."""
        await self.order(an_order("order-1", *quantities))
        await self.pay()

    async def cancel(self, item_ids: Collection[str] = (), order_id: OrderId = ORDER_ID) -> Fulfillment:
        wanted = [ItemId(item_id) for item_id in item_ids]
        async with self.orders.transaction() as transaction:
            return await self.operating.cancel(transaction, order_id, wanted, CAROL)

    async def retry(self, item_id: str = "") -> Fulfillment:
        async with self.orders.transaction() as transaction:
            return await self.operating.retry(transaction, ORDER_ID, ItemId(item_id) if item_id else None, CAROL)

    async def open(self, key_id: KeyId) -> None:
        """Let a key's owner open it: vault knows first, and tells."""
        assert key_id not in self.vault.revoked
        self.vault.opened.add(key_id)
        async with self.orders.transaction() as transaction:
            await self.openings.key_opened(transaction, key_id)

    async def corrupt(self, key_id: KeyId) -> None:
        """Let vault tell that a key did not open when its owner asked for it."""
        async with self.orders.transaction() as transaction:
            await self.openings.key_corrupted(transaction, key_id)

    async def claim(self, limit: int = 64) -> Sequence[Claimed]:
        return [*await self.progress.claim_first(limit), *await self.progress.claim_later(limit)]

    async def work(self) -> int:
        """Claim what is due once, and act on it; return how much it was."""
        claimed = await self.claim()
        for each in claimed:
            await self.progress.act(each)
        return len(claimed)

    async def wait_in_vain(self, duration: timedelta) -> None:
        """Let time pass, and ask once more while nobody answers."""
        self.clock.time += duration
        self.supplier.is_away = self.vault.is_away = True
        await self.work()
        self.supplier.is_away = self.vault.is_away = False

    async def settle(self, *, within: timedelta = timedelta(days=1)) -> None:
        """Work, and let time pass, until nothing is due within that long."""
        until = self.clock.now() + within
        for _ in range(MOST_ROUNDS):
            await self.work()
            due = [row.run_at for row in self.orders.rows.purchases.values() if row.run_at is not None]
            if not due or min(due) > until:
                return
            self.clock.time = max(self.clock.time, min(due))
        raise AssertionError("it never comes to rest")

    async def found(self, order_id: OrderId = ORDER_ID) -> Fulfillment:
        async with self.orders.transaction() as transaction:
            found = await transaction.load(order_id)
        assert found is not None
        return found

    async def place(self, **changes: object) -> Purchase:
        """Change the one purchase that there is, as if it had come so far; return it."""
        (purchase,) = self.orders.purchases()
        changed = replace(purchase, **changes)  # type: ignore[arg-type] # fields by name
        async with self.orders.transaction() as transaction:
            await transaction.save_purchase(changed, now=self.clock.now(), run_at=None)
        return changed

    def purchase(self, number: int = 0) -> Purchase:
        return self.orders.purchases()[number]

    def sealed(self) -> list[Key]:
        return [row.key for row in self.orders.rows.keys.values()]

    def requests(self) -> list[RefundRequest]:
        return list(self.orders.rows.requests.values())

    def asked_back(self) -> int:
        """Sum up what the shop was told to pay back, in cents."""
        return sum(told.amount.minor_units for told in self.orders.told(FulfillmentRefundRequested))

    def canceled(self) -> list[tuple[str, int, str]]:
        return [(told.item_id, told.quantity, told.reason) for told in self.orders.told(FulfillmentCanceled)]

    def audited(self, action: str) -> list[AuditRecorded]:
        return [fact for fact in self.orders.told(AuditRecorded) if fact.action == action]

    def states(self) -> list[State]:
        return [purchase.state for purchase in self.orders.purchases()]

    def reasons(self) -> list[Reason]:
        return [purchase.reason for purchase in self.orders.purchases()]
