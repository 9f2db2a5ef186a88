"""Products that we have bought, in PostgreSQL."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from chassis.database import Database
from chassis.outbox import Outbox
from sqlalchemy import or_, select, text, update

from kinguin_gateway.adapters.announcements import product_changed
from kinguin_gateway.adapters.purchase_rows import NOW
from kinguin_gateway.adapters.tables import PRODUCT
from kinguin_gateway.domain.purchase import Product
from kinguin_gateway.ports.products import DueProduct

_P = PRODUCT.c
_FREE = or_(_P.lease_end.is_(None), _P.lease_end < NOW)
# Kept out of the path of buying. What was bought since the newest product was noted, with some overlap: a purchase may
# be committed later than its create time says.
_NOTE = text(
    """
    INSERT INTO product (product_id, next_read_time)
    SELECT DISTINCT purchase.product_id, clock_timestamp()
    FROM purchase
    WHERE create_time > (SELECT coalesce(max(create_time), 'epoch') FROM product) - interval '10 minutes'
    ON CONFLICT DO NOTHING
    """
)


class PostgresProducts:
    """Implements `kinguin_gateway.ports.products.Products`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def bought(self) -> Collection[str]:
        """See the port."""
        async with self._database.transaction("kinguin_gateway.note_products") as connection:
            await connection.execute(_NOTE)
            return frozenset((await connection.execute(select(_P.product_id))).scalars())

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[DueProduct]:
        """See the port."""
        due = (
            select(_P.product_id)
            .where(_P.next_read_time <= NOW, _FREE)
            .order_by(_P.next_read_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        async with self._database.transaction("kinguin_gateway.claim_products") as connection:
            statement = update(PRODUCT).where(_P.product_id == due.c.product_id).values(lease_end=NOW + lease)
            rows = (await connection.execute(statement.returning(*_P))).all()
        return [DueProduct(row.product_id, _is_hurried(row), row.read_time) for row in rows]

    async def record(
        self, read: Sequence[tuple[str, Product | None]], unchanged: Sequence[str], *, again: timedelta
    ) -> None:
        """See the port."""
        next_time: dict[str, Any] = {"lease_end": None, "read_time": NOW, "next_read_time": NOW + again}
        async with self._database.transaction("kinguin_gateway.record_products") as connection:
            for product_id, product in read:
                price = None if product is None else product.cheapest_cents
                available = 0 if product is None else product.available_quantity
                locked = select(*_P, NOW.label("now")).where(_P.product_id == product_id).with_for_update()
                row = (await connection.execute(locked)).one()
                statement = update(PRODUCT).where(_P.product_id == product_id)
                await connection.execute(statement.values(price_cents=price, available=available, **next_time))
                if row.read_time is not None and (row.price_cents, row.available) != (price, available):
                    event = product_changed(product_id, price_cents=price, available=available, time=row.now)
                    await self._outbox.enqueue(connection, event)
            if unchanged:
                statement = update(PRODUCT).where(_P.product_id.in_(unchanged))
                await connection.execute(statement.values(**next_time))


def _is_hurried(row: Any) -> bool:
    return row.read_time is None or (row.told_time is not None and row.told_time > row.read_time)
