"""Tables in memory whose transactions really run side by side: rows are locked as PostgreSQL locks them.

A transaction sees what is committed and what it wrote itself (READ COMMITTED). Rows are never changed, only replaced,
so that nothing is copied but the few that a transaction writes.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from chassis.errors import ServiceUnavailable

from tests.simulation.network import Process

Table = dict[Any, Any]
Lock = tuple[Hashable, ...]


class Tables:
    """What is committed, and who holds which lock."""

    def __init__(self, *names: str) -> None:
        self.committed: dict[str, Table] = {name: {} for name in names}
        self.owners: dict[Lock, Work] = {}

    def table(self, name: str) -> Table:
        return self.committed[name]


class Work:
    """One transaction, before its end."""

    def __init__(self, tables: Tables, process: Process) -> None:
        self.process = process
        self._tables = tables
        self._mine: dict[str, Table] = {}
        self._locks: list[Lock] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._waits_for: Work | None = None

    async def pause(self) -> None:
        """Let others run between two statements, now and then, or die there."""
        process = self.process
        if not process.sky.is_clear:
            process.point()
            if process.sky.strikes(process.sky.weather.pause):
                await asyncio.sleep(process.sky.luck.upto(0.05))

    def get(self, name: str, key: Hashable) -> Any:
        mine = self._mine.get(name)
        if mine is not None and key in mine:
            return mine[key]
        return self._tables.committed[name].get(key)

    def scan(self, name: str) -> Iterable[Any]:
        mine = self._mine.get(name)
        base = self._tables.committed[name]
        return base.values() if mine is None else {**base, **mine}.values()

    def put(self, name: str, key: Hashable, row: Any) -> None:
        """Write a row that is locked by this transaction, or new to everybody."""
        self._mine.setdefault(name, {})[key] = row

    def written(self) -> dict[str, Table]:
        """Return what was written so far."""
        return {name: dict(rows) for name, rows in self._mine.items()}

    def restore(self, written: dict[str, Table]) -> None:
        """Forget what was written since; its locks stay, as a savepoint's do not."""
        self._mine = written

    async def change(self, name: str, key: Hashable, change: Callable[[Any], Any]) -> Any:
        """Lock a row, read it again, and replace it; nothing happens where there is none."""
        await self.lock((name, key))
        row = self.get(name, key)
        if row is None:
            return None
        row = change(row)
        self.put(name, key, row)
        return row

    def is_free(self, lock: Lock) -> bool:
        return self._tables.owners.get(lock, self) is self

    def take(self, lock: Lock) -> None:
        if self._tables.owners.get(lock) is None:
            self._tables.owners[lock] = self
            self._locks.append(lock)

    async def lock(self, lock: Lock) -> None:
        """Wait for a lock. Raises ServiceUnavailable where that would be a deadlock."""
        owners = self._tables.owners
        while (owner := owners.get(lock)) is not None and owner is not self:
            other: Work | None = owner
            while other is not None:
                if other is self:
                    raise ServiceUnavailable("deadlock")
                other = other._waits_for  # of its own kind
            future: asyncio.Future[None] = self.process.sky.loop.create_future()
            owner._waiters.append(future)  # of its own kind
            self._waits_for = owner
            try:
                await future
            finally:
                self._waits_for = None
        self.take(lock)

    def commit(self) -> None:
        for name, rows in self._mine.items():
            self._tables.committed[name].update(rows)

    def end(self) -> None:
        """Give all locks back, whatever became of the transaction."""
        for lock in self._locks:
            self._tables.owners.pop(lock, None)
        self._locks = []
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)


def first(rows: Iterable[Any], count: int, key: Callable[[Any], Any]) -> Sequence[Any]:
    """Return the first rows in an order."""
    return sorted(rows, key=key)[:count]
