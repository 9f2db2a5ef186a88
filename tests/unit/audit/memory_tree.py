"""The tree and the published checkpoints in memory, as PostgreSQL and S3 serve their ports. Both pass one suite."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from audit.domain.tree import Node
from audit.errors import CheckpointStoreUnavailable
from audit.ports import CheckpointExists, CheckpointMissing, StoredEntry

from tests.unit.audit.memory_log import MemoryLog, MemoryTransaction, stored_hashes


@dataclass
class MemoryTree:
    """The tree of a log in memory."""

    log: MemoryLog

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["MemoryTreeTurn"]:
        self.log.check_there()
        yield MemoryTreeTurn(self.log, None)

    @asynccontextmanager
    async def filling(self) -> AsyncIterator["MemoryTreeTurn"]:
        async with self.log.transaction() as transaction:
            await transaction.take_turn()
            yield MemoryTreeTurn(self.log, transaction)


class MemoryTreeTurn:
    """A look at the tree, or a turn in the log to fill it."""

    def __init__(self, log: MemoryLog, transaction: MemoryTransaction | None) -> None:
        self._log = log
        self._transaction = transaction

    async def entry_count(self) -> int:
        return self._log.stored[-1].appended.sequence + 1 if self._log.stored else 0

    async def filled(self) -> int:
        return 2 * (1 + max((node.index for node in self._log.subtrees if node.level == 1), default=-1))

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        return stored_hashes(self._log.stored, self._log.subtrees, nodes)

    async def stored_entries(self, start: int, *, limit: int) -> Sequence[StoredEntry]:
        entries = [
            StoredEntry(entry.appended.sequence, entry.canonical, entry.appended.leaf_hash)
            for entry in self._log.stored
            if entry.appended.sequence >= start
        ]
        return entries[:limit]

    async def leaf_hashes(self, start: int, *, limit: int) -> Sequence[bytes]:
        return [
            entry.appended.leaf_hash for entry in self._log.stored if start <= entry.appended.sequence < start + limit
        ]

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        assert self._transaction is not None
        await self._transaction.add_subtrees(subtrees)


@dataclass
class MemoryCheckpoints:
    """Published checkpoints by size. `away` makes the store unreachable."""

    published: dict[int, str] = field(default_factory=dict)
    away: bool = False

    async def publish(self, size: int, note: str) -> None:
        self._check_there()
        if size in self.published:
            raise CheckpointExists(str(size))
        self.published[size] = note

    async def read(self, size: int) -> str:
        self._check_there()
        if size not in self.published:
            raise CheckpointMissing(str(size))
        return self.published[size]

    async def newest_size(self) -> int | None:
        self._check_there()
        return max(self.published, default=None)

    async def notes(self) -> AsyncIterator[tuple[int, str]]:
        for size in sorted(self.published):
            self._check_there()
            yield size, self.published[size]

    def _check_there(self) -> None:
        if self.away:
            raise CheckpointStoreUnavailable("the store of checkpoints does not answer")
