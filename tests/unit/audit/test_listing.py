from dataclasses import replace

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.appending import append_drafts
from audit.domain.entry import Actor, ActorType, Draft
from audit.domain.filters import Filters
from audit.listing import list_entries
from chassis.errors import InvalidRequest
from chassis.paging import write_page_token

from tests.unit.audit.memory_log import MemoryLog

ALICE = Actor(ActorType.CUSTOMER, "alice", "alice@example.com")


async def fill(log: MemoryLog, keys: JosePersonKeys, *actors: Actor) -> None:
    drafts = [Draft(f"append-{n}", b"", actor, "key.sealed", "vault") for n, actor in enumerate(actors)]
    async with log.transaction() as transaction:
        await append_drafts(transaction, keys, drafts)


async def test_a_customer_and_an_admin_of_one_id_are_two_persons_found_by_one_filter(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    staff = Actor(ActorType.ADMIN, "alice")
    await fill(log, keys, ALICE, staff, Actor(ActorType.SERVICE, "alice"), Actor(ActorType.CUSTOMER, "bob"))
    page = await list_entries(log, keys, Filters(actor_id="alice"), size=10, token="")
    assert [listed.actor for listed in page.entries] == [ALICE, staff, Actor(ActorType.SERVICE, "alice")]
    assert page.entries[0].entry.actor_id != page.entries[1].entry.actor_id


async def test_a_person_can_be_found_by_pseudonym(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, ALICE)
    (person,) = log.persons.values()
    page = await list_entries(log, keys, Filters(actor_id=person.pseudonym), size=10, token="")
    assert len(page.entries) == 1


async def test_the_last_page_has_no_token_even_when_it_is_full(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, ALICE, ALICE)
    first = await list_entries(log, keys, Filters(), size=1, token="")
    second = await list_entries(log, keys, Filters(), size=1, token=first.next_page_token)
    assert first.next_page_token
    assert not second.next_page_token
    assert not (await list_entries(MemoryLog(), keys, Filters(), size=1, token="")).entries


async def test_an_entry_whose_personal_part_was_tampered_with_is_still_listed(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    await fill(log, keys, ALICE)
    (stored,) = log.stored
    (person,) = log.persons.values()
    log.stored[0] = replace(stored, canonical=stored.canonical.replace('"personal":"ey', '"personal":"eY'))
    (listed,) = (await list_entries(log, keys, Filters(), size=10, token="")).entries
    assert listed.actor == Actor(ActorType.CUSTOMER, person.pseudonym)


@pytest.mark.parametrize("sequence", ["-1", str(2**63), "9" * 5000, "1.5", "true", "", "\u0667"])
async def test_a_forged_position_is_refused(log: MemoryLog, keys: JosePersonKeys, sequence: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await list_entries(log, keys, Filters(), size=1, token=write_page_token(("", "", "", ""), [sequence]))
    assert raised.value.field_violations[0].field == "page_token"
