"""Purchases, and who works on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from chassis.database import notify
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    case,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from fulfillment.adapters.connection import DUE, OnConnection
from fulfillment.adapters.reading import items_of, purchase_of
from fulfillment.adapters.tables import ORDER, PURCHASE
from fulfillment.domain.model import ExternalId, Purchase, Reason
from fulfillment.ports.supplier import Buying

# As the index `purchase_waiting` has it: as parameters they would not be known when the statement is planned.
_WAITING: list[ColumnElement[str]] = [literal_column("'PENDING'"), literal_column("'PURCHASING'")]


class PostgresPurchaseRows(OnConnection):
    """The rows of purchases."""

    async def add_purchases(self, purchases: Sequence[Purchase], *, run_at: datetime) -> None:
        """Add purchases, due at the given time."""
        if not purchases:
            return
        customers = await self._customers({purchase.order_id for purchase in purchases})
        rows = [
            {
                "external_id": purchase.external_id,
                "order_id": purchase.order_id,
                "item_id": purchase.item_id,
                "customer_id": customers[purchase.order_id],
                "chunk": purchase.chunk,
                "attempt": purchase.attempt,
                "run_at": run_at,
                "hastened": False,
                **_facts(purchase),
            }
            for purchase in purchases
        ]
        # Another one in the same place of a line is a mistake, and raises.
        await self._connection.execute(insert(PURCHASE).on_conflict_do_nothing(index_elements=["external_id"]), rows)
        notify(self._connection, DUE)

    async def _customers(self, order_ids: set[Any]) -> Mapping[str, str]:
        found = await self._connection.execute(
            select(ORDER.c.order_id, ORDER.c.customer_id).where(ORDER.c.order_id.in_(order_ids))
        )
        return {row.order_id: row.customer_id for row in found}

    async def waiting(self, customer_id: str, *, most: int) -> int:
        """Count a customer's purchases that wait to be bought, up to the given number."""
        return (await self._connection.execute(waiting_statement(customer_id, most))).scalar_one()

    async def lock_due(self, shares: Mapping[int, int], *, now: datetime) -> Sequence[Buying]:
        """Lock purchases that are due, from each lane at most its share, each with its order.

        One index scan for each lane, which ends with its share. The order is locked too, as by everybody who changes
        one of its purchases: they have the order first, and would wait for the purchase while we wait for the order.
        """
        shares = {lane: share for lane, share in sorted(shares.items()) if share > 0}
        if not shares:
            return ()
        rows = (await self._connection.execute(due_statement(shares, now))).all()
        items = await items_of(self._connection, {row.order_id for row in rows})
        return [
            Buying(
                purchase_of(row, items[row.order_id, row.item_id]),
                items[row.order_id, row.item_id],
                row.buyer,
                row.country_code,
            )
            for row in sorted(rows, key=lambda row: (row.lane, row.run_at))
        ]

    async def lease(self, purchase: Purchase, *, until: datetime) -> Purchase:
        """Write a claimed purchase and count its claims up."""
        claim = await self._connection.execute(
            update(PURCHASE)
            .where(PURCHASE.c.external_id == purchase.external_id)
            .values(**_facts(purchase), run_at=until, lease_until=until, hastened=False, claim=PURCHASE.c.claim + 1)
            .returning(PURCHASE.c.claim)
        )
        return replace(purchase, claim=claim.scalar_one(), next_time=until)

    async def renew(self, purchase: Purchase, *, until: datetime) -> None:
        """Write a purchase that its worker goes on with. Raises LookupError when it is somebody else's by now."""
        renewed = await self._connection.execute(
            update(PURCHASE)
            .where(PURCHASE.c.external_id == purchase.external_id, PURCHASE.c.claim == purchase.claim)
            .values(**_facts(purchase), run_at=until, lease_until=until)
            .returning(PURCHASE.c.external_id)
        )
        if renewed.first() is None:
            raise LookupError("a purchase that somebody else has claimed cannot be gone on with")

    async def extend_leases(self, claims: Mapping[ExternalId, int], *, now: datetime, until: datetime) -> None:
        """Let leases that have not ended last longer; one that has ended may be somebody else's already."""
        if not claims:
            return
        # What is locked is being answered: waiting for it could only end in a deadlock.
        held = (
            select(PURCHASE.c.external_id)
            .where(
                tuple_(PURCHASE.c.external_id, PURCHASE.c.claim).in_(list(claims.items())), PURCHASE.c.lease_until > now
            )
            .with_for_update(skip_locked=True)
        )
        await self._connection.execute(
            update(PURCHASE).where(PURCHASE.c.external_id.in_(held)).values(run_at=until, lease_until=until)
        )

    async def save_purchase(self, purchase: Purchase, *, now: datetime, run_at: datetime | None) -> None:
        """Write a purchase and end its lease, unless that is somebody else's by now."""
        values = _facts(purchase)
        if run_at is None:
            values.update(run_at=None, lease_until=None, hastened=False)
        else:
            foreign = and_(PURCHASE.c.claim != purchase.claim, PURCHASE.c.lease_until > now)
            values.update(
                run_at=case((foreign, PURCHASE.c.run_at), (PURCHASE.c.hastened, now), else_=run_at),
                lease_until=case((foreign, PURCHASE.c.lease_until), else_=None),
                hastened=and_(foreign, PURCHASE.c.hastened),
            )
        await self._connection.execute(
            update(PURCHASE).where(PURCHASE.c.external_id == purchase.external_id).values(values)
        )
        if run_at is not None:
            notify(self._connection, DUE)

    async def put_off(self, external_id: ExternalId, *, run_at: datetime) -> None:
        """Let a purchase be looked at again later and write nothing else of it."""
        await self._connection.execute(
            update(PURCHASE).where(PURCHASE.c.external_id == external_id).values(run_at=run_at, lease_until=None)
        )

    async def hasten(self, external_id: ExternalId, *, now: datetime) -> None:
        """Let a waiting purchase be looked at now; one that a worker has, as soon as it is put back."""
        leased = PURCHASE.c.lease_until > now
        await self._connection.execute(
            update(PURCHASE)
            .where(PURCHASE.c.external_id == external_id, PURCHASE.c.run_at.is_not(None))
            .values(run_at=case((leased, PURCHASE.c.run_at), else_=now), hastened=case((leased, True), else_=False))
        )
        notify(self._connection, DUE)


def waiting_statement(customer_id: str, most: int) -> Select[int]:
    """Count by the index of what waits, which holds nothing else of the customer."""
    some = select(PURCHASE.c.external_id).where(PURCHASE.c.customer_id == customer_id, PURCHASE.c.state.in_(_WAITING))
    return select(func.count()).select_from(some.limit(most).subquery())


def due_statement(shares: Mapping[int, int], now: datetime) -> CompoundSelect[Any]:
    """Lock what is due, each lane's by an index scan of its own."""
    return union_all(*(select(_due(lane, share, now).subquery()) for lane, share in shares.items()))


def _due(lane: int, share: int, now: datetime) -> Select[Any]:
    # Lane and share are written into the statement: what is planned without knowing them is planned for a tenth of all.
    return (
        select(PURCHASE, ORDER.c.customer_id.label("buyer"), ORDER.c.country_code)
        .join(ORDER, ORDER.c.order_id == PURCHASE.c.order_id)
        .where(PURCHASE.c.lane == _written(lane), PURCHASE.c.run_at <= now)
        .order_by(PURCHASE.c.run_at)
        .limit(_written(share))
        .with_for_update(skip_locked=True, of=[PURCHASE, ORDER])
    )


def _written(number: int) -> ColumnElement[int]:
    return literal_column(str(int(number)))


def _facts(purchase: Purchase) -> dict[str, Any]:
    """Return everything of a purchase that may change, but for who works on it and for words that were not read."""
    unread = set[str]()
    if purchase.reason is Reason.ROW_UNREADABLE:
        unread |= {"state", "reason"}
    if purchase.give_up is Reason.ROW_UNREADABLE:
        unread.add("give_up")
    return {name: value for name, value in _all_facts(purchase).items() if name not in unread}


def _all_facts(purchase: Purchase) -> dict[str, Any]:
    return {
        "quantity": purchase.quantity,
        "state": purchase.state.value,
        "reason": purchase.reason.value,
        "state_time": purchase.state_time,
        "offer_id": purchase.offer_id,
        "unit_limit": purchase.unit_limit,
        "replaced_key_id": purchase.replaced_key_id,
        "is_preorder": purchase.is_preorder,
        "release_time": purchase.release_time,
        "refusal": purchase.refusal,
        "supplier_order_id": purchase.supplier_order_id,
        "charged": purchase.charged,
        "place_time": purchase.place_time,
        "tries": purchase.tries,
        "park_time": purchase.park_time,
        "overdue_time": purchase.overdue_time,
        "give_up": purchase.give_up.value,
        "canceled_quantity": purchase.canceled_quantity,
        "lane": purchase.lane,
    }
