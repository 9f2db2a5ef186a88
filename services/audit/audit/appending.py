"""Appending: one rule for a place in the log, and groups of appends that share one transaction.

An append has three moments. *Waiting*: if the process dies now nobody was answered and nothing is there; the caller
repeats it under the same id. *Committed*: it is durable; if the process dies now the caller repeats it and gets the
place it has. *Answered*.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import structlog
from chassis.errors import RequestIdReused, ServiceUnavailable

from audit.domain.entry import (
    NOBODY,
    Actor,
    ActorType,
    Appended,
    Draft,
    Place,
    canonical_entry,
    leaf_hash,
    next_place,
)
from audit.growing import grow_tree
from audit.ports import EarlierAppend, Log, LogTransaction, NewEntry, Person, PersonKeys

logger = structlog.get_logger(__name__)

# Large enough that a burst costs few commits, small enough that the lock is held for milliseconds.
LARGEST_GROUP = 200
# Above this an append would wait for more than a second; the caller had better try another replica.
MOST_WAITING = 4_000
# Above the database's own limits for a statement and a lock, which say better what was slow.
GROUP_SECONDS = 9.0

Result = Appended | RequestIdReused


async def append_drafts(log: LogTransaction, keys: PersonKeys, drafts: Sequence[Draft]) -> list[Result]:
    """Append drafts in their order, and grow the tree by them, within a transaction that the caller commits.

    A draft whose id was appended before is not appended again: its result is the place it got then, or an error when
    it was another message.
    """
    last, now = await log.take_turn()
    drafts = await _of_nobody_forgotten(log, keys, drafts)
    earlier = dict(await log.earlier_appends({draft.append_id for draft in drafts}))
    persons = await _Persons.find(log, keys, drafts)
    fresh: list[NewEntry] = []
    results: list[Result] = []
    for draft in drafts:
        known = earlier.get(draft.append_id)
        if known is not None:
            results.append(_answer_repeat(draft, known, persons.digest(draft)))
            continue
        entry = await _make_entry(draft, next_place(last, now), keys, persons)
        last = Place(entry.appended.sequence, entry.appended.time)
        earlier[draft.append_id] = EarlierAppend(entry.request_digest, entry.appended)
        fresh.append(entry)
        results.append(entry.appended)
    if fresh:
        await log.add_entries(fresh)
        first = fresh[0].appended.sequence
        await grow_tree(log, first, [entry.appended.leaf_hash for entry in fresh])
    return results


async def _of_nobody_forgotten(log: LogTransaction, keys: PersonKeys, drafts: Sequence[Draft]) -> Sequence[Draft]:
    """Tell of nobody what events tell of customers who were forgotten since it happened; their facts stay."""
    lookups = {
        draft.append_id: keys.lookups(draft.actor.type, draft.actor.id)
        for draft in drafts
        if draft.actor.type is ActorType.CUSTOMER and draft.occur_time is not None
    }
    forgotten = await log.forgotten({each for some in lookups.values() for each in some}) if lookups else {}

    def of_nobody(draft: Draft) -> Draft:
        times = [forgotten[each] for each in lookups.get(draft.append_id, ()) if each in forgotten]
        if not times or draft.occur_time is None or draft.occur_time > max(times):
            return draft
        return replace(draft, actor=Actor(ActorType.CUSTOMER, NOBODY), told=draft.append_id.encode())

    return [of_nobody(draft) for draft in drafts] if forgotten else drafts


async def _make_entry(draft: Draft, place: Place, keys: PersonKeys, persons: "_Persons") -> NewEntry:
    actor_id, personal = draft.actor.id, ""
    if draft.actor.is_person:
        person = await persons.have(draft)
        actor_id, personal = person.pseudonym, keys.close_personal(person, draft.actor)
    canonical = canonical_entry(draft, place, actor_id=actor_id, personal=personal)
    digest = persons.digest(draft)
    return NewEntry(draft.append_id, digest, canonical, Appended(place.sequence, place.time, leaf_hash(canonical)))


def _answer_repeat(draft: Draft, known: EarlierAppend, digest: bytes) -> Result:
    if known.request_digest == digest:
        return known.appended
    return RequestIdReused(
        "request_id: was used with another body; use a new id for a new entry",
        metadata={"request_id": draft.append_id},
    )


class _Persons:
    """The persons of a group: looked up at once, and made when they are first written about."""

    def __init__(self, log: LogTransaction, keys: PersonKeys, known: dict[bytes, Person]) -> None:
        self._log = log
        self._keys = keys
        self._known = known

    @classmethod
    async def find(cls, log: LogTransaction, keys: PersonKeys, drafts: Sequence[Draft]) -> "_Persons":
        lookups = {
            lookup
            for draft in drafts
            if draft.actor.is_person
            for lookup in keys.lookups(draft.actor.type, draft.actor.id)
        }
        return cls(log, keys, dict(await log.persons(lookups)) if lookups else {})

    async def have(self, draft: Draft) -> Person:
        """Return the person, made now if need be."""
        person = self._find(draft)
        if person is None:
            person = self._keys.new_person()
            active = self._keys.lookups(draft.actor.type, draft.actor.id)[0]
            await self._log.add_person(person, active)
            self._known[active] = person
        return person

    def digest(self, draft: Draft) -> bytes:
        """Return what a repeat is compared by. Of a person that is not known it matches nothing that was stored."""
        person = self._find(draft) if draft.actor.is_person else None
        return self._keys.request_digest(person, draft.told) if person else hashlib.sha256(draft.told).digest()

    def _find(self, draft: Draft) -> Person | None:
        lookups = self._keys.lookups(draft.actor.type, draft.actor.id)
        return next((self._known[lookup] for lookup in lookups if lookup in self._known), None)


@dataclass(slots=True)
class _Waiting:
    draft: Draft
    answer: asyncio.Future[Appended] = field(repr=False)


class GroupAppender:
    """Takes whatever waits while the group before it is being committed, and commits it in one transaction."""

    def __init__(self, log: Log, keys: PersonKeys) -> None:
        self._log = log
        self._keys = keys
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    async def append(self, draft: Draft) -> Appended:
        """Append a draft and return once it is durable. `run` must be running.

        Raises RequestIdReused when its id was used for another entry, and ServiceUnavailable when it is not known
        to be durable: append the same draft again then.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise ServiceUnavailable("too many appends are waiting")
        waiting = _Waiting(draft, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Append until canceled; who still waits then is told so."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    group, self._waiting = self._waiting[:LARGEST_GROUP], self._waiting[LARGEST_GROUP:]
                    await self._append_group(group)
        finally:
            _refuse(self._waiting)
            self._waiting = []

    async def _append_group(self, group: Sequence[_Waiting]) -> None:
        # Who gave up waiting gets no entry, unless its entry was on its way already.
        wanted = [waiting for waiting in group if not waiting.answer.done()]
        try:
            if await self._try(wanted):
                return
            # One draft that cannot be stored must not take the others with it.
            for waiting in wanted:
                if not await self._try([waiting]):
                    _refuse([waiting])
        finally:
            _refuse(wanted)

    async def _try(self, group: Sequence[_Waiting]) -> bool:
        """Append a group and answer it; False when it fails for a reason that may lie in one of its drafts."""
        if not group:
            return True
        try:
            async with asyncio.timeout(GROUP_SECONDS), self._log.transaction() as transaction:
                results = await append_drafts(transaction, self._keys, [waiting.draft for waiting in group])
        except (ServiceUnavailable, TimeoutError) as error:
            logger.warning("appending is held up", entries=len(group), kind=type(error).__name__)
            _refuse(group)
            return True
        except Exception:  # the caller of each must get an answer, whatever happened
            logger.exception("append failed", entries=len(group))
            return False
        for waiting, result in zip(group, results, strict=True):
            _answer(waiting, result)
        return True


def _answer(waiting: _Waiting, result: Result) -> None:
    if waiting.answer.done():
        return
    if isinstance(result, RequestIdReused):
        waiting.answer.set_exception(result)
    else:
        waiting.answer.set_result(result)


def _refuse(group: Sequence[_Waiting]) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(ServiceUnavailable("the entry is not known to be durable; append it again"))
