"""The delivery log of each key, and by what owners are known."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.adapters.tables import DELIVERY, KEY, KNOWN_ACCESS, delivery_of
from vault.domain.delivery import MOST_RELEASES_KEPT, RELEASES, Act, Delivery, Usage
from vault.domain.familiarity import Kind

_RELEASES = [act.value for act in RELEASES]
# What an owner is known by is written again once a day: most accesses are like the one before.
_DAY = timedelta(days=1)


class PostgresDeliveryRows:
    """Implements `vault.ports_keeping.DeliveryRows`."""

    _connection: AsyncConnection

    async def note_delivery(self, key_ids: Collection[str], delivery: Delivery) -> None:
        """Note that something was done with keys."""
        if key_ids:
            rows = [_row(key_id, delivery) for key_id in key_ids]
            await self._connection.execute(insert(DELIVERY).on_conflict_do_nothing(), rows)

    async def note_release(self, key_id: str, delivery: Delivery) -> None:
        """Note and count a link or a reveal."""
        noted = (
            insert(DELIVERY)
            .values(_row(key_id, delivery))
            .on_conflict_do_nothing()
            .returning(DELIVERY.c.position)
            .cte("noted")
        )
        count = KEY.c.link_count if delivery.act is Act.LINK_ISSUED else KEY.c.reveal_count
        fresh = select(func.count()).select_from(noted).scalar_subquery()
        statement = (
            update(KEY)
            .where(KEY.c.key_id == key_id)
            .values({count: count + fresh})
            .returning(KEY.c.link_count + KEY.c.reveal_count)
        )
        if (await self._connection.execute(statement)).scalar_one() > MOST_RELEASES_KEPT:
            await self._drop_oldest(key_id)

    async def _drop_oldest(self, key_id: str) -> None:
        releases = (DELIVERY.c.key_id == key_id, DELIVERY.c.act.in_(_RELEASES))
        oldest_kept = (
            select(DELIVERY.c.position)
            .where(*releases)
            .order_by(DELIVERY.c.position.desc())
            .offset(MOST_RELEASES_KEPT - 1)
            .limit(1)
            .scalar_subquery()
        )
        await self._connection.execute(delete(DELIVERY).where(*releases, DELIVERY.c.position < oldest_kept))

    async def usage(self, key_id: str, request_id: str, *, since: datetime) -> Usage:
        """Return the links and reveals of a key since then."""
        statement = (
            select(DELIVERY.c.time, DELIVERY.c.request_id)
            .where(DELIVERY.c.key_id == key_id, DELIVERY.c.act.in_(_RELEASES), DELIVERY.c.time > since)
            .order_by(DELIVERY.c.time)
            .limit(MOST_RELEASES_KEPT)
        )
        rows = (await self._connection.execute(statement)).all()
        return Usage([row.time for row in rows], any(row.request_id == request_id for row in rows))

    async def read_deliveries(self, key_id: str) -> Sequence[Delivery]:
        """Return what was noted of a key."""
        statement = select(DELIVERY).where(DELIVERY.c.key_id == key_id).order_by(DELIVERY.c.position)
        return [delivery_of(row) for row in (await self._connection.execute(statement)).all()]

    async def known_access(self, owners: Collection[str]) -> Mapping[Kind, Collection[str]]:
        """Return the digests of traits by which an owner is known."""
        statement = select(KNOWN_ACCESS.c.kind, KNOWN_ACCESS.c.trait).where(KNOWN_ACCESS.c.owner_digest.in_(owners))
        known: dict[Kind, set[str]] = {}
        for row in (await self._connection.execute(statement)).all():
            known.setdefault(Kind(row.kind), set()).add(row.trait)
        return known

    async def know_access(self, owner: str, traits: Mapping[Kind, str], *, now: datetime, most: int) -> None:
        """Note that an owner was seen with these traits."""
        if not traits:
            return
        rows = [
            {"owner_digest": owner, "kind": kind.value, "trait": trait, "use_time": now}
            for kind, trait in sorted(traits.items(), key=lambda item: item[0].value)
        ]
        statement = insert(KNOWN_ACCESS).values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=["owner_digest", "kind", "trait"],
            set_={"use_time": statement.excluded.use_time},
            where=KNOWN_ACCESS.c.use_time < now - _DAY,
        )
        if (await self._connection.execute(statement.returning(KNOWN_ACCESS.c.kind))).all():
            await self._forget_longest_unseen(owner, most)

    async def _forget_longest_unseen(self, owner: str, most: int) -> None:
        ranked = (
            select(
                KNOWN_ACCESS.c.kind,
                KNOWN_ACCESS.c.trait,
                func.row_number()
                .over(partition_by=KNOWN_ACCESS.c.kind, order_by=KNOWN_ACCESS.c.use_time.desc())
                .label("rank"),
            )
            .where(KNOWN_ACCESS.c.owner_digest == owner)
            .subquery()
        )
        await self._connection.execute(
            delete(KNOWN_ACCESS).where(
                KNOWN_ACCESS.c.owner_digest == owner,
                KNOWN_ACCESS.c.kind == ranked.c.kind,
                KNOWN_ACCESS.c.trait == ranked.c.trait,
                ranked.c.rank > most,
            )
        )


def _row(key_id: str, delivery: Delivery) -> dict[str, object]:
    return {
        "key_id": key_id,
        "act": delivery.act.value,
        "time": delivery.time,
        "caller": delivery.caller,
        "request_id": delivery.request_id,
        "reason": delivery.reason,
        "network": delivery.network,
        "device": delivery.device,
    }
