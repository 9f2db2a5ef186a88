"""Purchases and their sealed keys in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from chassis.tables import REQUEST_LOG
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kinguin_gateway.adapters.purchase_rows import (
    NOW,
    WHOLE,
    PurchaseRows,
    purchase_of,
    request_id_reused,
    same_purchase,
    seen_columns,
    write_key_states,
)
from kinguin_gateway.adapters.tables import PURCHASE, SEALED_KEY
from kinguin_gateway.domain.purchase import KeyRef, Purchase, SupplierKeyState, SupplierOrder
from kinguin_gateway.ports.purchases import SealedSoFar

_C = PURCHASE.c
_COLLECTING = "keyferry.kinguin.v1.CollectKeysRequest"


class PostgresKeys(PurchaseRows):
    """Implements `kinguin_gateway.ports.purchases.SealedKeys`."""

    async def find(self, external_id: str) -> Purchase | None:
        """See the port."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(*WHOLE).where(_C.external_id == external_id))).one_or_none()
        return None if row is None else purchase_of(row)

    async def load_keys(self, external_id: str, *, request_id: str, digest: bytes) -> SealedSoFar | None:
        """See the port."""
        async with self.transaction("load") as connection:
            noted = insert(REQUEST_LOG).values(request_id=request_id, method=_COLLECTING, digest=digest, response=b"")
            # An update that changes nothing: the only way to get the row back whether or not it was there.
            same = noted.on_conflict_do_update(
                index_elements=["request_id"], set_={"request_id": noted.excluded.request_id}
            )
            if (await connection.execute(same.returning(REQUEST_LOG.c.digest))).scalar_one() != digest:
                raise request_id_reused(request_id)
            row = (await connection.execute(select(*WHOLE).where(_C.external_id == external_id))).one_or_none()
            if row is None:
                return None
            return SealedSoFar(purchase_of(row), await self._keys(connection, external_id))

    async def record_keys(
        self, purchase: Purchase, order: SupplierOrder, new: Sequence[KeyRef], *, finished: bool
    ) -> SealedSoFar:
        """See the port."""
        external_id = purchase.intent.external_id
        async with self.transaction("keys") as connection:
            if new:
                rows = [
                    {
                        "external_id": external_id,
                        "supplier_key_id": key.supplier_key_id,
                        "key_id": key.key_id,
                        "content_type": key.content_type,
                        "held": key.held,
                    }
                    for key in new
                ]
                await connection.execute(insert(SEALED_KEY).on_conflict_do_nothing(), rows)
            values = {**seen_columns(purchase, order), **({"next_look_time": None} if finished else {})}
            statement = update(PURCHASE).where(same_purchase(purchase)).values(update_time=NOW, **values)
            row = (await connection.execute(statement.returning(*WHOLE))).one()
            await write_key_states(connection, purchase, order)
            return SealedSoFar(purchase_of(row), await self._keys(connection, external_id))

    async def _keys(self, connection: AsyncConnection, external_id: str) -> list[KeyRef]:
        statement = select(SEALED_KEY).where(SEALED_KEY.c.external_id == external_id).order_by(SEALED_KEY.c.position)
        rows = (await connection.execute(statement)).all()
        return [_key_ref(row) for row in rows]


def _key_ref(row: Row[Any]) -> KeyRef:
    return KeyRef(row.supplier_key_id, row.key_id, row.content_type, held=row.held, state=SupplierKeyState(row.state))
