"""Listings of purchases in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from chassis.database import Database
from sqlalchemy import Select, select, tuple_

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
        async with self._database.transaction() as connection:
            rows = (await connection.execute(page_statement(wanted, size=size, after=after))).all()
        return [purchase_of(row) for row in rows]


def page_statement(wanted: PurchaseFilter, *, size: int, after: tuple[datetime, str] | None) -> Select[tuple[Any, ...]]:
    """Return the query for one page.

    It has one lower bound, the later of the two: given both, PostgreSQL may begin at the earlier one, and each page
    would read all those before it again.
    """
    statement = select(*WHOLE).order_by(_C.create_time, _C.external_id).limit(size)
    if wanted.order_id:
        statement = statement.where(_C.order_id == wanted.order_id)
    if wanted.state is not None:
        statement = statement.where(_C.state == wanted.state.value)
    if wanted.parked:
        statement = statement.where(PARKED)
    if wanted.end_time is not None:
        statement = statement.where(_C.create_time < wanted.end_time)
    if after is not None and (wanted.start_time is None or after[0] >= wanted.start_time):
        return statement.where(tuple_(_C.create_time, _C.external_id) > after)
    return statement if wanted.start_time is None else statement.where(_C.create_time >= wanted.start_time)
