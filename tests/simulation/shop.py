"""The shop: it repeats itself until it is answered, pays back what it is asked for, and now and then on its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fulfillment.domain.model import Amount, ItemId, Order, OrderId, Payment, Refund
from fulfillment.operating import Asked

from tests.simulation.people import CUSTOMER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentRefundRequested

    from tests.simulation.replica import Replica
    from tests.simulation.rows import Transaction
    from tests.simulation.shapes import Told
    from tests.simulation.world import World

PAUSE = 7.0


@dataclass
class Shop:
    """What the shop knows, and what it was told."""

    world: World
    heard: dict[tuple[str, ...], Told] = field(default_factory=dict)
    paid: dict[OrderId, list[Payment]] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)

    def hear(self, identity: tuple[str, ...], told: Told) -> None:
        """Take an event of ours; one that comes again says nothing new."""
        if identity in self.heard:
            return
        self.heard[identity] = told
        if told.subject == "fulfillment.refund_requested":
            self.world.start(self._pay_back(told.message))

    def _heard(self, subject: str, number: str) -> bool:
        return any(identity[0] == subject and identity[3] == number for identity in self.heard if len(identity) > 3)

    async def sell(self, order: Order) -> None:
        """Tell of an order and its payments, in any order, until every payment is accepted."""
        luck = self.world.luck
        total = order.total.minor_units
        parts = [total // 2, total - total // 2] if luck.chance(0.1) else [total]
        if luck.chance(0.02):
            parts.append(100)
        now = self.world.clock.now()
        payments = [
            Payment("stripe", f"{order.order_id}-pay-{n}", order.order_id, Amount("EUR", cents), now)
            for n, cents in enumerate(parts)
        ]
        self.paid[order.order_id] = payments
        for telling in range(200):
            missing = [each for each in payments if not self._heard("fulfillment.accepted", each.payment_id)]
            if not missing:
                return
            for payment in missing:
                name = f"{payment.payment_id}/{luck.pick((0, telling))}"
                self.world.queue.publish(name, self._confirmed(order, payment, name, alone=luck.chance(0.2)))
            await asyncio.sleep(0.5 if self.world.sky.is_clear else PAUSE * (0.5 + luck.random()))
        self.world.faults.append(f"{order.order_id}: never accepted")

    def _confirmed(
        self, order: Order, payment: Payment, name: str, *, alone: bool
    ) -> Callable[[Replica, Transaction], Awaitable[object]]:
        async def handle(replica: Replica, transaction: Transaction) -> None:
            if not alone:
                await replica.intake.take_order(transaction, order, order.order_id.encode())
            await replica.intake.take_payment(transaction, payment, telling=name)

        return handle

    async def _pay_back(self, asked: FulfillmentRefundRequested) -> None:
        luck = self.world.luck
        await asyncio.sleep(luck.upto(20))
        payment = self.paid[OrderId(asked.order_id)][0]
        cents = min(asked.amount.minor_units, self.left(payment.order_id))
        if cents > 0:
            refund = Refund(
                payment.provider,
                f"back-{asked.refund_request_id}",
                payment.payment_id,
                Amount("EUR", cents),
                self.world.clock.now(),
                request_ids=(asked.refund_request_id,),
            )
            await self.pay_back(refund)

    def left(self, order_id: OrderId) -> int:
        """Return what is left of an order's money."""
        payments = self.paid[order_id]
        names = {each.payment_id for each in payments}
        back = sum(each.amount.minor_units for each in self.refunds.values() if each.payment_id in names)
        return sum(each.amount.minor_units for each in payments) - back

    async def refund_by_itself(self, order: Order) -> None:
        """Pay back what is left, or one line, without having been asked; or have it taken by a bank."""
        luck = self.world.luck
        await asyncio.sleep(luck.pick((3.0, 30.0, 120.0)) * luck.random())
        cents, item_ids = self.left(order.order_id), tuple[ItemId, ...]()
        if cents <= 0 or order.order_id not in self.paid:
            return
        if len(order.items) > 1 and luck.chance(0.3):
            item = luck.pick(order.items)
            cents, item_ids = min(cents, (item.unit_price or 0) * item.quantity), (item.item_id,)
        refund = Refund(
            "stripe",
            f"own-{order.order_id}",
            self.paid[order.order_id][0].payment_id,
            Amount("EUR", cents),
            self.world.clock.now(),
            item_ids=item_ids,
            is_chargeback=luck.chance(0.3),
        )
        self.world.own_refunds.add(order.order_id)
        await self.pay_back(refund)

    async def pay_back(self, refund: Refund) -> None:
        luck = self.world.luck
        self.refunds[refund.refund_id] = refund
        for telling in range(200):
            if self._heard("fulfillment.refunded", refund.refund_id):
                return
            name = f"{refund.refund_id}/{luck.pick((0, telling))}"

            async def handle(replica: Replica, transaction: Transaction, name: str = name) -> None:
                await replica.intake.take_refund(transaction, refund, telling=name)

            self.world.queue.publish(name, handle)
            await asyncio.sleep(0.5 if self.world.sky.is_clear else PAUSE * (0.5 + luck.random()))
        self.world.faults.append(f"{refund.refund_id}: never answered")

    async def cancel(self, order: Order) -> None:
        """Call off what is outstanding, of the whole order or a line."""
        world, luck = self.world, self.world.luck
        await asyncio.sleep(luck.pick((2.0, 20.0, 60.0)) * luck.random())
        item_ids = [luck.pick(order.items).item_id] if luck.chance(0.2) else []

        async def ask(replica: Replica) -> None:
            async with replica.rows.transaction() as transaction:
                await replica.operating.cancel(
                    transaction, order.order_id, item_ids, Asked(CUSTOMER, "changed my mind")
                )

        await world.ask(ask)
