"""The log in memory: the port as PostgreSQL serves it, without PostgreSQL. Both pass the same contract suite."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from audit.domain.entry import Entry, Place, read_entry
from audit.domain.filters import Filters
from audit.domain.tree import Node
from audit.ports import EarlierAppend, Line, NewEntry, Person
from chassis.errors import ServiceUnavailable


@dataclass
class MemoryLog:
    """Keeps what was committed. `away` makes it unreachable; `poison` is an order id that cannot be stored."""

    stored: list[NewEntry] = field(default_factory=list)
    persons: dict[bytes, Person] = field(default_factory=dict)
    subtrees: dict[Node, bytes] = field(default_factory=dict)
    now: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    away: bool = False
    poison: str = "order-\x00"
    commits: int = 0
    struck: list[str] = field(default_factory=list)
    forgotten: dict[bytes, datetime] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["MemoryTransaction"]:
        self.check_there()
        transaction = MemoryTransaction(self)
        try:
            yield transaction
            await asyncio.sleep(0)
            self.stored += transaction.new_entries
            self.persons.update(transaction.new_persons)
            for lookup in transaction.gone:
                self.persons.pop(lookup, None)
            self.struck += transaction.struck
            self.forgotten.update(transaction.noted)
            self.subtrees.update(transaction.new_subtrees)
            self.commits += 1
        finally:
            transaction.end()

    def check_there(self) -> None:
        if self.away:
            raise ServiceUnavailable("the log does not answer")


class MemoryTransaction:
    """Holds back what it adds until it is committed."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._has_turn = False
        self.new_entries: list[NewEntry] = []
        self.new_persons: dict[bytes, Person] = {}
        self.gone: list[bytes] = []
        self.struck: list[str] = []
        self.noted: dict[bytes, datetime] = {}
        self.new_subtrees: dict[Node, bytes] = {}

    def end(self) -> None:
        if self._has_turn:
            self._log.turn.release()

    async def take_turn(self) -> tuple[Place | None, datetime]:
        if not self._has_turn:
            await self._log.turn.acquire()
            self._has_turn = True
        self._log.now += timedelta(milliseconds=1)
        stored = self._all_entries()
        if not stored:
            return None, self._log.now
        last = stored[-1].appended
        return Place(last.sequence, last.time), self._log.now

    async def earlier_appends(self, append_ids: Collection[str]) -> Mapping[str, EarlierAppend]:
        return {
            entry.append_id: EarlierAppend(entry.request_digest, entry.appended)
            for entry in self._all_entries()
            if entry.append_id in append_ids
        }

    async def persons(self, lookups: Collection[bytes]) -> Mapping[bytes, Person]:
        return {lookup: person for lookup, person in self._all_persons().items() if lookup in lookups}

    async def add_person(self, person: Person, lookup: bytes) -> None:
        if lookup in self._all_persons():
            raise KeyError(lookup)
        self.new_persons[lookup] = person

    async def add_entries(self, entries: Sequence[NewEntry]) -> None:
        for entry in entries:
            if read_entry(entry.canonical, b"").order_id == self._log.poison:
                raise ValueError("cannot be stored")
        self.new_entries += entries

    async def hashes(self, nodes: Collection[Node]) -> Mapping[Node, bytes]:
        entries = [*self._log.stored, *self.new_entries]
        return stored_hashes(entries, {**self._log.subtrees, **self.new_subtrees}, nodes)

    async def add_subtrees(self, subtrees: Mapping[Node, bytes]) -> None:
        known = {**self._log.subtrees, **self.new_subtrees}
        for node in subtrees:
            if node in known:
                raise KeyError(node)
        self.new_subtrees.update(subtrees)

    async def entries(self, filters: Filters, *, actor_ids: Collection[str], after: int, limit: int) -> Sequence[Entry]:
        all_entries = (read_entry(entry.canonical, entry.appended.leaf_hash) for entry in self._log.stored)
        matching = [
            entry
            for entry in all_entries
            if entry.sequence > after
            and filters.order_id in {"", entry.order_id}
            and filters.key_id in {"", entry.key_id}
            and filters.action in {"", entry.action}
            and (not actor_ids or entry.actor_id in actor_ids)
            and (filters.start_time is None or entry.time >= filters.start_time)
            and (filters.end_time is None or entry.time < filters.end_time)
        ]
        return matching[:limit]

    async def size(self) -> int:
        return len(self._all_entries())

    async def lines(self, start: int, end: int, *, limit: int) -> Sequence[Line]:
        found = [Line(entry.appended.sequence, entry.canonical) for entry in self._all_entries()]
        return [line for line in found if start <= line.sequence < end][:limit]

    async def forget_person(self, lookups: Sequence[bytes], *, told_at: int) -> None:
        (told,) = [entry for entry in self.new_entries if entry.appended.sequence == told_at]
        if read_entry(told.canonical, b"").action != "customer.erased":
            raise PermissionError("nobody is forgotten without an entry")
        self.gone += lookups

    async def note_forgotten(self, lookups: Sequence[bytes], *, time: datetime) -> None:
        self.noted.update(dict.fromkeys(lookups, time))

    async def forgotten(self, lookups: Collection[bytes]) -> Mapping[bytes, datetime]:
        known = {**self._log.forgotten, **self.noted}
        return {lookup: time for lookup, time in known.items() if lookup in lookups}

    async def strike_from_dead_letters(self, customer_id: str) -> None:
        self.struck.append(customer_id)

    async def persons_named(self, pseudonyms: Collection[str]) -> Mapping[str, Person]:
        persons = self._all_persons().values()
        return {person.pseudonym: person for person in persons if person.pseudonym in pseudonyms}

    def _all_persons(self) -> dict[bytes, Person]:
        known = {**self._log.persons, **self.new_persons}
        return {lookup: person for lookup, person in known.items() if lookup not in self.gone}

    def _all_entries(self) -> list[NewEntry]:
        return [*self._log.stored, *self.new_entries]
        return {**self._log.persons, **self.new_persons}


def stored_hashes(
    entries: Sequence[NewEntry], subtrees: Mapping[Node, bytes], nodes: Collection[Node]
) -> dict[Node, bytes]:
    leaves = {entry.appended.sequence: entry.appended.leaf_hash for entry in entries}
    known = {node: leaves.get(node.index) if node.level == 0 else subtrees.get(node) for node in nodes}
    return {node: digest for node, digest in known.items() if digest is not None}
