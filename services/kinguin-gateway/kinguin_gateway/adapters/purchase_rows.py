"""What every reading and writing of purchases shares: whole rows, and steps that a crash may end at any point.

Every time that decides anything is the database's clock, which all replicas share.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chassis.database import Database
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.failpoints import failpoint
from chassis.outbox import Outbox
from sqlalchemy import ColumnElement, DateTime, func, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.tables import PURCHASE, SEALED_KEY
from kinguin_gateway.domain.guard import WITHDRAWAL, when_not_taken
from kinguin_gateway.domain.looking import delivered_count
from kinguin_gateway.domain.purchase import (
    Intent,
    Problem,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrder,
    SupplierOrderState,
)
from kinguin_gateway.domain.refunds import paid_back_cents

_C = PURCHASE.c
NOW = func.clock_timestamp(type_=DateTime(timezone=True))
_SEALED_COUNT = (
    select(func.count())
    .where(SEALED_KEY.c.external_id == _C.external_id)
    .correlate(PURCHASE)
    .scalar_subquery()
    .label("sealed_count")
)
WHOLE = (*_C, _SEALED_COUNT, NOW.label("now"))
FREE = or_(_C.lease_end.is_(None), _C.lease_end < NOW)


class PurchaseRows:
    """One database of purchases, and the outbox that tells of them."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self, step: str) -> AsyncIterator[AsyncConnection]:
        """Commit the block as one step, with a place to fail before and after the commit."""
        async with self._database.transaction() as connection:
            yield connection
            await failpoint(f"kinguin_gateway.before_{step}_commit")
        await failpoint(f"kinguin_gateway.after_{step}_commit")

    async def advance(
        self, connection: AsyncConnection, purchase: Purchase, *conditions: ColumnElement[bool], **values: Any
    ) -> Row[Any] | None:
        """Write what came of holding the lease, and give it back; None where a condition does not hold any more."""
        statement = (
            update(PURCHASE)
            .where(same_purchase(purchase), *conditions)
            .values(**{"lease_end": None, "update_time": NOW, **values})
        )
        return (await connection.execute(statement.returning(*WHOLE))).one_or_none()

    async def reread(self, connection: AsyncConnection, purchase: Purchase) -> Purchase:
        """Return the purchase as somebody else left it. Raises ServiceUnavailable where the database forgot it."""
        row = (await connection.execute(select(*WHOLE).where(same_purchase(purchase)))).one_or_none()
        if row is None:
            # It was opened in a database that has been replaced meanwhile by one that never heard of it.
            raise ServiceUnavailable("the database does not know the purchase any more")
        return purchase_of(row)


def same_purchase(purchase: Purchase) -> ColumnElement[bool]:
    """Return the condition for the row of a purchase."""
    return _C.external_id == purchase.intent.external_id


def seen_columns(purchase: Purchase, order: SupplierOrder) -> dict[str, Any]:
    """Return the columns that a look at the supplier's order tells."""
    values: dict[str, Any] = {
        "supplier_order_state": order.state.value,
        "delivered_count": delivered_count(purchase, order),
        "canceled_count": order.canceled_count,
    }
    if order.preorder and order.release_time is not None:
        values["release_time"] = order.release_time
    if order.product_name:
        values["product_name"] = order.product_name
    if order.charged_cents is not None:
        values["charged_cents"] = order.charged_cents
    if (paid_back := paid_back_cents(order)) is not None:
        values["refunded_cents"] = paid_back
    return values


def refusal_columns(problem: Problem) -> dict[str, Any]:
    """Return the columns of a purchase that is refused for ever."""
    return {
        "state": PurchaseState.REFUSED.value,
        "refusal_kind": problem.kind,
        "refusal_detail": problem.detail,
        "refusal_trace": problem.trace,
        "park_time": None,
        "next_look_time": None,
    }


def untaken_columns(*, withdrawn: bool) -> dict[str, Any]:
    """Return the columns of a purchase of which certainly nothing was taken."""
    if when_not_taken(withdrawn=withdrawn) is PurchaseState.REFUSED:
        return {"doubt": "", **refusal_columns(WITHDRAWAL)}
    return {"doubt": "", "state": PurchaseState.INTENDED.value, "next_look_time": None}


async def write_key_states(connection: AsyncConnection, purchase: Purchase, order: SupplierOrder) -> None:
    """Write the states of sealed keys that went back, or were given up: all others are delivered, as they were."""
    for state in (SupplierKeyState.RETURNED, SupplierKeyState.REFUNDED, SupplierKeyState.CANCELED):
        ids = [key.supplier_key_id for key in order.keys if key.state is state]
        if ids:
            statement = update(SEALED_KEY).where(
                SEALED_KEY.c.external_id == purchase.intent.external_id,
                SEALED_KEY.c.supplier_key_id.in_(ids),
                SEALED_KEY.c.state != state.value,
            )
            await connection.execute(statement.values(state=state.value))


def request_id_reused(request_id: str) -> RequestIdReused:
    """Return the error for a request id that was used with another body."""
    return RequestIdReused(
        "request_id: was used with another body; use a new id for a new request", metadata={"request_id": request_id}
    )


def purchase_of(row: Row[Any]) -> Purchase:
    """Return the purchase of a whole row."""
    return Purchase(
        intent=Intent(**{name: getattr(row, name) for name in Intent.__dataclass_fields__}),
        state=PurchaseState(row.state),
        attempt=row.attempt,
        send_deadline=row.send_deadline,
        create_time=row.create_time,
        supplier_order_id=row.supplier_order_id or "",
        supplier_order_state=SupplierOrderState(row.supplier_order_state) if row.supplier_order_state else None,
        delivered_count=row.delivered_count,
        sealed_count=row.sealed_count,
        product_name=row.product_name,
        charged_cents=row.charged_cents,
        refusal=Problem(row.refusal_kind, row.refusal_detail, row.refusal_trace),
        looks=row.looks,
        revision=row.revision,
        parked=row.park_time is not None,
        canceled_count=row.canceled_count,
        release_time=row.release_time,
        doubt=row.doubt,
        withdrawn=row.withdraw_time is not None,
        refunded_cents=row.refunded_cents,
    )
