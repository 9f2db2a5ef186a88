"""The log in PostgreSQL."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from chassis.database import Database, database_now
from chassis.failpoints import failpoint
from sqlalchemy import ARRAY, BigInteger, LargeBinary, cast, func, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.adapters.dead_letters import strike_customer
from audit.adapters.searching import entries_statement, first_at_statement
from audit.adapters.tables import ENTRY, FORGOTTEN, PERSON
from audit.adapters.tree import insert_subtrees, select_hashes, take_turn
from audit.domain.entry import Appended, Entry, Place, read_entry
from audit.domain.filters import Filters
from audit.domain.tree import Node
from audit.ports import EarlierAppend, Line, LogTransaction, NewEntry, Person


class PostgresLog:
    """The log in its own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[LogTransaction]:
        """Begin a transaction; it is committed when the block ends, and nothing happened when the block raises."""
        async with self._database.transaction() as connection:
            yield PostgresLogTransaction(connection)
            await failpoint("audit.before_commit")
        await failpoint("audit.after_commit")


class PostgresLogTransaction:
    """The log within a transaction that somebody has begun."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take_turn(self) -> tuple[Place | None, datetime]:
        """Take the lock, then look: a statement that did both would see what was there before it waited."""
        await take_turn(self._connection)
        last = (
            await self._connection.execute(
                select(ENTRY.c.canonical, ENTRY.c.leaf_hash).order_by(ENTRY.c.sequence.desc()).limit(1)
            )
        ).one_or_none()
        now = await database_now(self._connection)
        if last is None:
            return None, now
        entry = read_entry(last.canonical, last.leaf_hash)
        return Place(entry.sequence, entry.time), now

    async def earlier_appends(self, append_ids: Collection[str]) -> Mapping[str, EarlierAppend]:
        """Return those of the ids that were appended before."""
        rows = await self._connection.execute(
            select(ENTRY.c.append_id, ENTRY.c.request_digest, ENTRY.c.canonical, ENTRY.c.leaf_hash).where(
                ENTRY.c.append_id.in_(append_ids)
            )
        )
        found: dict[str, EarlierAppend] = {}
        for row in rows:
            entry = read_entry(row.canonical, row.leaf_hash)
            found[row.append_id] = EarlierAppend(
                row.request_digest, Appended(entry.sequence, entry.time, entry.leaf_hash)
            )
        return found

    async def persons(self, lookups: Collection[bytes]) -> Mapping[bytes, Person]:
        """Return the persons known under these lookup digests."""
        rows = await self._connection.execute(select(PERSON).where(PERSON.c.lookup.in_(lookups)))
        return {row.lookup: Person(row.pseudonym, row.secret_version, row.wrapped_key) for row in rows}

    async def add_person(self, person: Person, lookup: bytes) -> None:
        """Store a person."""
        await self._connection.execute(
            insert(PERSON).values(
                pseudonym=person.pseudonym,
                lookup=lookup,
                secret_version=person.secret_version,
                wrapped_key=person.wrapped_key,
            )
        )

    async def add_entries(self, entries: Sequence[NewEntry]) -> None:
        """Store entries."""
        rows = [
            {
                "sequence": entry.appended.sequence,
                "append_id": entry.append_id,
                "request_digest": entry.request_digest,
                "canonical": entry.canonical,
                "leaf_hash": entry.appended.leaf_hash,
            }
            for entry in entries
        ]
        await self._connection.execute(insert(ENTRY), rows)

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        """Return the stored hashes of these subtrees, without those that are not there; at level 0 of entries."""
        return await select_hashes(self._connection, nodes)

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        """Store the hashes of subtrees that have become perfect."""
        await insert_subtrees(self._connection, subtrees)

    async def entries(self, filters: Filters, *, actor_ids: Collection[str], after: int, limit: int) -> Sequence[Entry]:
        """Return entries by sequence, from the one after `after`; `actor_ids` are the forms the actor may have."""
        start = after + 1 if filters.start_time is None else max(after + 1, await self._first_at(filters.start_time))
        end = None if filters.end_time is None else await self._first_at(filters.end_time)
        statement = entries_statement(filters, actor_ids=sorted(actor_ids), start=start, end=end, limit=limit)
        rows = await self._connection.execute(statement)
        return [read_entry(row.canonical, row.leaf_hash) for row in rows]

    async def _first_at(self, moment: datetime) -> int:
        """Return the sequence of the first entry that the log took at this time or later, or the next one's."""
        return (await self._connection.execute(first_at_statement(moment))).scalar_one()  # type: ignore[no-any-return] # bigint

    async def size(self) -> int:
        """Return the sequence that comes next."""
        last = select(func.max(ENTRY.c.sequence))
        return (await self._connection.execute(select(func.coalesce(last.scalar_subquery(), -1) + 1))).scalar_one()  # type: ignore[no-any-return] # bigint

    async def lines(self, start: int, end: int, *, limit: int) -> Sequence[Line]:
        """Return entries by sequence as they were hashed, from `start` on and before `end`."""
        rows = await self._connection.execute(
            select(ENTRY.c.sequence, ENTRY.c.canonical)
            .where(ENTRY.c.sequence >= start, ENTRY.c.sequence < end)
            .order_by(ENTRY.c.sequence)
            .limit(limit)
        )
        return [Line(row.sequence, row.canonical) for row in rows]

    async def forget_person(self, lookups: Sequence[bytes], *, told_at: int) -> None:
        """Delete through the one function that may."""
        await self._connection.execute(
            select(func.forget_person(cast(list(lookups), ARRAY(LargeBinary)), cast(told_at, BigInteger)))
        )

    async def note_forgotten(self, lookups: Sequence[bytes], *, time: datetime) -> None:
        """Note when somebody was forgotten; the last time counts."""
        noting = insert_or_update(FORGOTTEN)
        await self._connection.execute(
            noting.on_conflict_do_update(index_elements=["lookup"], set_={"forget_time": noting.excluded.forget_time}),
            [{"lookup": lookup, "forget_time": time} for lookup in lookups],
        )

    async def forgotten(self, lookups: Collection[bytes]) -> Mapping[bytes, datetime]:
        """Return when those of them were forgotten that were lately."""
        rows = await self._connection.execute(select(FORGOTTEN).where(FORGOTTEN.c.lookup.in_(lookups)))
        return {row.lookup: row.forget_time for row in rows}

    async def strike_from_dead_letters(self, customer_id: str) -> None:
        """Take a customer out of the events that could not be taken."""
        await strike_customer(self._connection, customer_id)

    async def persons_named(self, pseudonyms: Collection[str]) -> Mapping[str, Person]:
        """Return the persons that were not forgotten yet, by pseudonym."""
        rows = await self._connection.execute(select(PERSON).where(PERSON.c.pseudonym.in_(pseudonyms)))
        return {row.pseudonym: Person(row.pseudonym, row.secret_version, row.wrapped_key) for row in rows}
