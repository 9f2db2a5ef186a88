"""Orders that were bought too much: each is to be given back, which is written where it is noticed."""

from collections.abc import Sequence
from typing import Any

from chassis.outbox import Outbox
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.announcements import purchase_audited
from kinguin_gateway.adapters.purchase_rows import NOW, purchase_of
from kinguin_gateway.adapters.tables import KEY_RETURN
from kinguin_gateway.domain.purchase import SupplierOrder
from kinguin_gateway.domain.returning import ReturnState


async def write_surplus(
    connection: AsyncConnection, outbox: Outbox, row: Row[Any], surplus: Sequence[SupplierOrder]
) -> None:
    """Write what is not there yet; `row` is the purchase as it is now, and its own order is never among them."""
    for order in surplus:
        if order.supplier_order_id == row.supplier_order_id:
            continue
        values = {
            "supplier_order_id": order.supplier_order_id,
            "external_id": row.external_id,
            "surplus": True,
            "state": ReturnState.ASKED.value,
            "next_look_time": NOW,
            "charged_cents": order.charged_cents,
        }
        statement = insert(KEY_RETURN).values(**values).on_conflict_do_nothing().returning(KEY_RETURN.c.external_id)
        if (await connection.execute(statement)).first() is None:
            continue
        event = purchase_audited(
            "purchase.surplus_found",
            purchase_of(row).intent,
            request_id=row.request_id,
            attempt=order.supplier_order_id,
            details={"supplier_order_id": order.supplier_order_id, "kept": row.supplier_order_id or ""},
            time=row.now,
        )
        await outbox.enqueue(connection, event)
