import json
from dataclasses import replace

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.appending import append_drafts
from audit.domain.entry import Actor, ActorType, Appended, Draft
from audit.domain.filters import Filters
from audit.erasing import Erasure, erase_customer
from audit.listing import list_entries
from chassis.errors import RequestIdReused
from chassis.keyring import Keyring

from tests.unit.audit.memory_log import MemoryLog

ALICE = Actor(ActorType.CUSTOMER, "alice", "alice@example.com", "192.0.2.7", "Browser/1.0")
SHOP = Actor(ActorType.SERVICE, "shop")
OLD = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NEW = "v2:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"
ERASURE = Erasure("3e4d5ad1-4c6c-4e5c-9d0e-3c1b7c0f4a11", "alice", SHOP, "shop")


async def append(log: MemoryLog, keys: JosePersonKeys, actor: Actor = ALICE) -> Appended:
    draft = Draft(f"append-{len(log.stored)}", b"", actor, "key.link_authorized", "vault")
    async with log.transaction() as transaction:
        (result,) = await append_drafts(transaction, keys, [draft])
    assert isinstance(result, Appended)
    return result


def pseudonym(log: MemoryLog, sequence: int) -> str:
    actor: str = json.loads(log.stored[sequence].canonical)["actor"]["id"]
    return actor


async def test_who_is_erased_is_a_pseudonym_that_leads_nowhere(log: MemoryLog, keys: JosePersonKeys) -> None:
    await append(log, keys)
    before = list(log.stored)
    erased = await erase_customer(log, keys, ERASURE)
    assert erased.sequence == 1
    assert log.stored[:1] == before
    assert log.persons == {}
    assert log.struck == ["alice"]
    page = await list_entries(log, keys, Filters(), size=9, token="")
    assert page.entries[0].actor == Actor(ActorType.CUSTOMER, pseudonym(log, 0))
    assert not (await list_entries(log, keys, Filters(actor_id="alice"), size=9, token="")).entries


async def test_the_entry_of_the_erasure_says_who_asked_and_not_whom_it_was_about(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    await append(log, keys)
    erased = await erase_customer(log, keys, ERASURE)
    canonical = log.stored[erased.sequence].canonical
    entry = json.loads(canonical)
    assert (entry["action"], entry["actor"], entry["recorder"]) == (
        "customer.erased",
        {"id": "shop", "type": "SERVICE"},
        "shop",
    )
    assert (entry["order_id"], entry["key_id"], entry["personal"], entry["details"]) == ("", "", "", {})
    assert "alice" not in canonical
    assert pseudonym(log, 0) not in canonical


async def test_later_entries_are_of_a_new_person_whom_a_repeat_does_not_forget(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    await append(log, keys)
    first = await erase_customer(log, keys, ERASURE)
    later = await append(log, keys)
    assert await erase_customer(log, keys, ERASURE) == first
    assert pseudonym(log, later.sequence) != pseudonym(log, 0)
    page = await list_entries(log, keys, Filters(actor_id="alice"), size=9, token="")
    assert [listed.actor for listed in page.entries] == [ALICE]
    await erase_customer(log, keys, replace(ERASURE, request_id="0f0f5ad1-4c6c-4e5c-9d0e-3c1b7c0f4a11"))
    assert not (await list_entries(log, keys, Filters(actor_id="alice"), size=9, token="")).entries


async def test_one_erasure_leaves_all_others_and_the_admin_of_this_id(log: MemoryLog, keys: JosePersonKeys) -> None:
    staff = Actor(ActorType.ADMIN, "alice")
    for actor in (ALICE, Actor(ActorType.CUSTOMER, "bob"), staff):
        await append(log, keys, actor)
    await erase_customer(log, keys, replace(ERASURE, asked_by=staff))
    page = await list_entries(log, keys, Filters(), size=9, token="")
    assert [listed.actor.id for listed in page.entries] == [pseudonym(log, 0), "bob", "alice", "alice"]


async def test_who_is_not_known_is_erased_all_the_same(log: MemoryLog, keys: JosePersonKeys) -> None:
    assert (await erase_customer(log, keys, ERASURE)).sequence == 0
    assert (await erase_customer(log, keys, ERASURE)).sequence == 0
    assert len(log.stored) == 1


async def test_the_same_id_for_another_customer_is_refused_and_nobody_is_forgotten(
    log: MemoryLog, keys: JosePersonKeys
) -> None:
    await append(log, keys, Actor(ActorType.CUSTOMER, "bob"))
    await erase_customer(log, keys, ERASURE)
    with pytest.raises(RequestIdReused):
        await erase_customer(log, keys, replace(ERASURE, customer_id="bob"))
    assert len(log.persons) == 1
    assert len(log.stored) == 2


async def test_a_repeat_is_known_after_the_secret_was_rotated(log: MemoryLog, keys: JosePersonKeys) -> None:
    await append(log, keys)
    first = await erase_customer(log, keys, ERASURE)
    rotated = JosePersonKeys(Keyring.parse(f"{NEW},{OLD}"))
    assert await erase_customer(log, rotated, ERASURE) == first


async def test_a_person_stored_under_a_retained_version_is_erased(log: MemoryLog, keys: JosePersonKeys) -> None:
    await append(log, keys)
    await erase_customer(log, JosePersonKeys(Keyring.parse(f"{NEW},{OLD}")), ERASURE)
    assert log.persons == {}
