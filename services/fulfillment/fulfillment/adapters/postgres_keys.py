"""Keys, by their names."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Column, select, update
from sqlalchemy.dialects.postgresql import insert

from fulfillment.adapters.connection import OnConnection
from fulfillment.adapters.tables import ITEM, KEY
from fulfillment.domain.model import ItemId, Key, KeyId, OrderId


class PostgresKeyRows(OnConnection):
    """The rows of keys."""

    async def order_of_key(self, key_id: KeyId) -> OrderId | None:
        """Return the order that a key belongs to."""
        statement = select(KEY.c.order_id).where(KEY.c.key_id == key_id)
        order_id = (await self._connection.execute(statement)).scalar_one_or_none()
        return None if order_id is None else OrderId(order_id)

    async def add_keys(self, order_id: OrderId, keys: Sequence[Key]) -> Sequence[Key]:
        """Add keys and return those that are new."""
        if not keys:
            return ()
        rows = [
            {
                "key_id": key.key_id,
                "order_id": order_id,
                "item_id": key.item_id,
                "external_id": key.external_id,
                "content_type": key.content_type,
                "held": key.held,
                "ready_time": key.ready_time,
                "open_time": key.open_time,
                "revoke_time": key.revoke_time,
                "replace_time": key.replace_time,
            }
            for key in keys
        ]
        statement = insert(KEY).values(rows).on_conflict_do_nothing(index_elements=["key_id"]).returning(KEY.c.key_id)
        added = set((await self._connection.execute(statement)).scalars())
        return [key for key in keys if key.key_id in added]

    async def open_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note the first opening of a key."""
        return await self._note(KEY.c.open_time, [key_id], now)

    async def revoke_keys(self, key_ids: Sequence[KeyId], *, now: datetime) -> None:
        """Note that nobody can open these keys any more."""
        await self._note(KEY.c.revoke_time, key_ids, now)

    async def replace_key(self, key_id: KeyId, *, now: datetime) -> bool:
        """Note that another key is bought in place of this one."""
        return await self._note(KEY.c.replace_time, [key_id], now)

    async def _note(self, time: "Column[datetime]", key_ids: Sequence[KeyId], now: datetime) -> bool:
        statement = update(KEY).where(KEY.c.key_id.in_(key_ids), time.is_(None)).values({time: now})
        return (await self._connection.execute(statement.returning(KEY.c.key_id))).first() is not None

    async def name_product(self, order_id: OrderId, item_id: ItemId, name: str) -> None:
        """Keep the supplier's name of a line's product."""
        if name:
            await self._connection.execute(
                update(ITEM)
                .where(ITEM.c.order_id == order_id, ITEM.c.item_id == item_id, ITEM.c.product_name != name)
                .values(product_name=name)
            )
