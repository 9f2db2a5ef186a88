"""The Merkle tree in PostgreSQL: one row for each perfect subtree above the leaves, whose hashes are the entries'."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from chassis.database import Database
from sqlalchemy import ARRAY, BigInteger, LargeBinary, SmallInteger, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain.tree import Node
from audit.ports import StoredEntry, TreeFilling, TreeReading

# Any number does, as long as everybody who appends to this database, now and later, takes the same one.
APPEND_TURN = 0x6B66_6175

# Look-ups by key for each subtree, whatever the planner thinks of the tables: a join may be planned as a scan of them.
HASHES = text(
    """
    SELECT level, index, CASE
        WHEN level = 0 THEN (SELECT leaf_hash FROM entry WHERE sequence = wanted.index)
        ELSE (SELECT hash FROM tree_node AS node WHERE node.level = wanted.level AND node.index = wanted.index)
    END AS hash
    FROM unnest(:levels, :indexes) AS wanted(level, index)
    """
).bindparams(bindparam("levels", type_=ARRAY(SmallInteger)), bindparam("indexes", type_=ARRAY(BigInteger)))
_ADD = text(
    "INSERT INTO tree_node (level, index, hash) SELECT level, index, hash "
    "FROM unnest(:levels, :indexes, :hashes) AS new(level, index, hash)"
).bindparams(
    bindparam("levels", type_=ARRAY(SmallInteger)),
    bindparam("indexes", type_=ARRAY(BigInteger)),
    bindparam("hashes", type_=ARRAY(LargeBinary)),
)
_TURN = text("SELECT pg_advisory_xact_lock(:turn)")
_COUNT = text("SELECT coalesce(max(sequence) + 1, 0) FROM entry")
_FILLED = text("SELECT coalesce(2 * (max(index) + 1), 0) FROM tree_node WHERE level = 1")
_ENTRIES = text(
    "SELECT sequence, canonical, leaf_hash FROM entry WHERE sequence >= :start ORDER BY sequence LIMIT :limit"
)
_LEAVES = text("SELECT leaf_hash FROM entry WHERE sequence >= :start AND sequence < :end ORDER BY sequence")


async def take_turn(connection: AsyncConnection) -> None:
    """Wait until no other transaction appends, and keep others waiting until this one ends."""
    await connection.execute(_TURN, {"turn": APPEND_TURN})


async def select_hashes(connection: AsyncConnection, nodes: Collection[Node]) -> dict[Node, bytes]:
    """Return the stored hashes of these subtrees, without those that are not there."""
    if not nodes:
        return {}
    rows = await connection.execute(HASHES, columns(nodes))
    return {Node(level, index): digest for level, index, digest in rows if digest is not None}


async def insert_subtrees(connection: AsyncConnection, subtrees: Mapping[Node, bytes]) -> None:
    """Store the hashes of subtrees."""
    if subtrees:
        await connection.execute(_ADD, {**columns(subtrees), "hashes": list(subtrees.values())})


def columns(nodes: Collection[Node]) -> dict[str, list[int]]:
    """Return the nodes as what the statements take."""
    return {"levels": [node.level for node in nodes], "indexes": [node.index for node in nodes]}


class PostgresTree:
    """The tree in the log's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[TreeReading]:
        """Look at the tree."""
        async with self._database.transaction() as connection:
            yield _PostgresTurn(connection)

    @asynccontextmanager
    async def filling(self) -> AsyncIterator[TreeFilling]:
        """Take a turn in the log."""
        async with self._database.transaction("audit.fill_tree") as connection:
            await take_turn(connection)
            yield _PostgresTurn(connection)


class _PostgresTurn:
    """The tree within a transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def entry_count(self) -> int:
        """Return how many entries the log has."""
        count: int = (await self._connection.execute(_COUNT)).scalar_one()
        return count

    async def filled(self) -> int:
        """Return how many entries the stored subtrees of two entries reach."""
        size: int = (await self._connection.execute(_FILLED)).scalar_one()
        return size

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        """Return the stored hashes of these subtrees."""
        return await select_hashes(self._connection, nodes)

    async def stored_entries(self, start: int, *, limit: int) -> Sequence[StoredEntry]:
        """Return entries by sequence."""
        rows = await self._connection.execute(_ENTRIES, {"start": start, "limit": limit})
        return [StoredEntry(row.sequence, row.canonical, row.leaf_hash) for row in rows]

    async def leaf_hashes(self, start: int, *, limit: int) -> Sequence[bytes]:
        """Return leaf hashes by sequence."""
        rows = await self._connection.execute(_LEAVES, {"start": start, "end": start + limit})
        return [row.leaf_hash for row in rows]

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        """Store the hashes of subtrees."""
        await insert_subtrees(self._connection, subtrees)
