"""Listing: filters that know persons by their pseudonyms, and entries with what is personal opened where it can be."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from chassis.errors import InvalidRequest
from chassis.paging import read_page_token, write_page_token

from audit.domain.entry import Actor, ActorType, Entry
from audit.domain.filters import Filters
from audit.ports import Log, LogTransaction, Person, PersonalUnreadable, PersonKeys

DEFAULT_PAGE = 50
LARGEST_PAGE = 500
_SEQUENCE_END = 2**63
_MOST_DIGITS = len(str(_SEQUENCE_END))

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry, and its actor as far as it is still known."""

    entry: Entry
    actor: Actor


@dataclass(frozen=True, slots=True)
class Page:
    """Entries by sequence, and the token of the next page; empty on the last one."""

    entries: tuple[ListedEntry, ...]
    next_page_token: str


async def list_entries(log: Log, keys: PersonKeys, filters: Filters, *, size: int, token: str) -> Page:
    """Return one page. An answered append is always there. Raises InvalidRequest for a foreign token."""
    place = read_page_token(filters.words(), token, parts=1)
    after = -1 if place is None else _sequence(place[0])
    async with log.transaction() as transaction:
        actor_ids = await _forms_of_actor(transaction, keys, filters.actor_id)
        found = await transaction.entries(filters, actor_ids=actor_ids, after=after, limit=size + 1)
        shown = found[:size]
        pseudonyms = {entry.actor_id for entry in shown if entry.personal}
        persons = await transaction.persons_named(pseudonyms) if pseudonyms else {}
    more = write_page_token(filters.words(), [str(shown[-1].sequence)]) if len(found) > size else ""
    return Page(tuple(ListedEntry(entry, _actor(entry, keys, persons)) for entry in shown), more)


def _sequence(text: str) -> int:
    """Read what a token says; it came from outside and may hold anything."""
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < _SEQUENCE_END:
        return int(text)
    raise InvalidRequest.of("page_token", "must be the next_page_token of the page before")


async def _forms_of_actor(log: LogTransaction, keys: PersonKeys, actor_id: str) -> set[str]:
    """Return what may stand in an entry for this id: itself for a service, pseudonyms for persons."""
    if not actor_id:
        return set()
    lookups = {lookup for sort in (ActorType.CUSTOMER, ActorType.ADMIN) for lookup in keys.lookups(sort, actor_id)}
    persons = await log.persons(lookups)
    return {actor_id, *(person.pseudonym for person in persons.values())}


def _actor(entry: Entry, keys: PersonKeys, persons: Mapping[str, Person]) -> Actor:
    person = persons.get(entry.actor_id)
    if entry.personal and person is not None:
        try:
            return keys.open_personal(person, entry.personal, entry.actor_type)
        except PersonalUnreadable as error:
            # Listing goes on: who looks at a log that was tampered with needs to see it.
            logger.error("personal data of an entry does not open", sequence=entry.sequence, why=str(error))  # noqa: TRY400 # the sentence says it all
    return Actor(type=entry.actor_type, id=entry.actor_id)
