from fulfillment.domain.model import Fulfillment, KeyId, OrderId, Purchase
from fulfillment.intake import Intake
from fulfillment.progress import Progress

from tests.unit.fulfillment.examples import DIGEST, HandClock, a_payment, an_order
from tests.unit.fulfillment.fakes import FakeSupplier
from tests.unit.fulfillment.memory_orders import MemoryOrders

ORDER_ID = OrderId("order-1")


class Shop:
    """One paid order, and a worker that is told when to look."""

    def __init__(self) -> None:
        self.orders, self.supplier, self.clock = MemoryOrders(), FakeSupplier(), HandClock()
        self.progress = Progress(self.orders, self.supplier, clock=self.clock, chance=lambda: 0.5)

    async def sell(self, *quantities: int) -> None:
        intake = Intake(self.clock)
        async with self.orders.transaction() as transaction:
            await intake.take_order(transaction, an_order("order-1", *quantities), DIGEST)
            await intake.take_payment(transaction, a_payment(), telling="event-1")

    async def work(self) -> int:
        """Claim what is due and act on it; how much it was."""
        claimed = await self.progress.claim(64)
        for each in claimed:
            await self.progress.act(each)
        return len(claimed)

    async def work_until_ready(self) -> None:
        while await self.work():
            pass

    async def open_key(self, key_id: KeyId) -> None:
        async with self.orders.transaction() as transaction:
            await self.progress.key_opened(transaction, key_id)

    async def found(self) -> Fulfillment:
        async with self.orders.transaction() as transaction:
            found = await transaction.load(ORDER_ID)
        assert found is not None
        return found

    def purchase(self, number: int = 0) -> Purchase:
        return self.orders.purchases()[number]

    def seconds_to_next_look(self) -> float | None:
        run_at = self.orders.rows.purchases[self.purchase().external_id].run_at
        return None if run_at is None else (run_at - self.clock.now()).total_seconds()
