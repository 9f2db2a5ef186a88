from fulfillment.domain.model import KeyId

from tests.unit.fulfillment.office import ORDER_ID, Office

__all__ = ["ORDER_ID", "Shop"]


class Shop(Office):
    """One paid order, and a worker that is told when to look."""

    async def sell(self, *quantities: int) -> None:
        await self.buy(*quantities)

    async def work_until_ready(self) -> None:
        while await self.work():
            pass

    async def open_key(self, key_id: KeyId) -> None:
        async with self.orders.transaction() as transaction:
            await self.openings.key_opened(transaction, key_id)

    def seconds_to_next_look(self) -> float | None:
        run_at = self.orders.rows.purchases[self.purchase().external_id].run_at
        return None if run_at is None else (run_at - self.clock.now()).total_seconds()
