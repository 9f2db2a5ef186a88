"""Payments in memory, as staff looks at them."""

from collections.abc import Sequence
from datetime import datetime

from fulfillment.domain.model import OrderId
from fulfillment.ports.payments import PaymentRecord, Unmatched

from tests.unit.fulfillment.memory_orders import MemoryOrders
from tests.unit.fulfillment.memory_rows import PaymentRow, payment_place


class MemoryPayments:
    """Payments as staff looks at them, over the same rows."""

    def __init__(self, orders: MemoryOrders) -> None:
        self._orders = orders

    async def find(self, provider: str, payment_id: str) -> PaymentRecord | None:
        row = self._orders.rows.payments.get((provider, payment_id))
        return None if row is None else self._record(row)

    async def page(
        self, *, order_id: OrderId | None, unmatched: bool, size: int, after: tuple[datetime, str, str] | None
    ) -> Sequence[PaymentRecord]:
        rows = sorted(self._orders.rows.payments.values(), key=_heard_of, reverse=True)
        return [
            self._record(row)
            for row in rows
            if (order_id is None or row.payment.order_id == order_id)
            and (not unmatched or self._waits(row))
            and (after is None or _heard_of(row) < after)
        ][:size]

    async def unmatched(self) -> Unmatched:
        rows = self._orders.rows
        payments = [row.create_time for row in rows.payments.values() if self._waits(row)]
        refunds = [row.create_time for row in rows.refunds.values() if payment_place(row.refund) not in rows.payments]
        return Unmatched(len(payments), len(refunds), min([*payments, *refunds], default=None))

    def _record(self, row: PaymentRow) -> PaymentRecord:
        return self._orders.rows.record(row)

    def _waits(self, row: PaymentRow) -> bool:
        return row.payment.order_id not in self._orders.rows.orders and not row.payment.is_closed


def _heard_of(row: PaymentRow) -> tuple[datetime, str, str]:
    return row.create_time, row.payment.provider, row.payment.payment_id
