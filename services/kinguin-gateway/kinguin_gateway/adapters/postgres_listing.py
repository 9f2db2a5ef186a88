"""Listings of purchases in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from chassis.database import Database
from sqlalchemy import select, tuple_

from kinguin_gateway.adapters.purchase_rows import WHOLE, purchase_of
from kinguin_gateway.adapters.switch_rows import PARKED
from kinguin_gateway.adapters.tables import PURCHASE
from kinguin_gateway.domain.purchase import Purchase
from kinguin_gateway.ports.purchases import PurchaseFilter

_C = PURCHASE.c


class PostgresListing:
    """Implements `kinguin_gateway.ports.purchases.Listing`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, wanted: PurchaseFilter, *, size: int, after: tuple[datetime, str] | None
    ) -> Sequence[Purchase]:
        """See the port."""
        statement = select(*WHOLE).order_by(_C.create_time, _C.external_id).limit(size)
        if wanted.order_id:
            statement = statement.where(_C.order_id == wanted.order_id)
        if wanted.state is not None:
            statement = statement.where(_C.state == wanted.state.value)
        if wanted.parked:
            statement = statement.where(PARKED)
        if after is not None:
            statement = statement.where(tuple_(_C.create_time, _C.external_id) > after)
        async with self._database.transaction() as connection:
            return [purchase_of(row) for row in (await connection.execute(statement)).all()]
