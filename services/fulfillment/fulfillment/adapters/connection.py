"""What every part of a transaction works on."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

CHANGED = "fulfillment_changed"
DUE = "fulfillment_due"

_ORDER_HOLDS = 2
_PAYMENT_HOLDS = 3


class OnConnection:
    """Statements on a connection that the caller commits.

    An order or a payment is held, there or not yet, until then. Whoever holds several holds orders before payments, and
    both before a row of an order is locked: in any other sequence two transactions could wait for each other.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _hold_order(self, order_id: str) -> None:
        await self._hold(order_id, _ORDER_HOLDS)

    async def _hold_payment(self, provider: str, payment_id: str) -> None:
        await self._hold(_payment(provider, payment_id), _PAYMENT_HOLDS)

    async def _hold_payments_of(self, order_id: str) -> None:
        known = text("SELECT provider, payment_id FROM payment WHERE order_id = :order_id ORDER BY 1, 2")
        for provider, payment_id in (await self._connection.execute(known, {"order_id": order_id})).all():
            await self._hold_payment(provider, payment_id)

    async def _hold(self, name: str, kind: int) -> None:
        await self._connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, :kind))"), {"name": name, "kind": kind}
        )


def _payment(provider: str, payment_id: str) -> str:
    # No identifier holds the separator.
    return f"{provider}\x1f{payment_id}"
