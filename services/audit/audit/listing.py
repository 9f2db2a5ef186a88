"""Listing: filters that know persons by their pseudonyms, and entries with what is personal opened where it can be."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from audit.domain.entry import Actor, ActorType, Entry
from audit.domain.paging import Filters, make_page_token, read_page_token
from audit.ports import Log, LogTransaction, Person, PersonalUnreadable, PersonKeys

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
    """Return one page. An answered append is always there. Raises PageTokenUnreadable for a foreign token."""
    after = read_page_token(filters, token)
    async with log.transaction() as transaction:
        actor_ids = await _forms_of_actor(transaction, keys, filters.actor_id)
        found = await transaction.entries(filters, actor_ids=actor_ids, after=after, limit=size + 1)
        shown = found[:size]
        pseudonyms = {entry.actor_id for entry in shown if entry.personal}
        persons = await transaction.persons_named(pseudonyms) if pseudonyms else {}
    more = make_page_token(filters, shown[-1].sequence) if len(found) > size else ""
    return Page(tuple(ListedEntry(entry, _actor(entry, keys, persons)) for entry in shown), more)


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
