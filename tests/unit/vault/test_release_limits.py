"""How often a key may be opened, and what is told of accesses that are new."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from vault.domain.delivery import Act
from vault.domain.key import KeyRecord
from vault.errors import KeyNotFound, ReleaseLimit
from vault.ports import Release, Viewer

from tests.unit.vault.fakes import ALICE, BOB, MOST_PER_HOUR, NOON, World, a_seal

HOUR = timedelta(hours=1)


async def use_up(world: World, record: KeyRecord) -> None:
    for number in range(MOST_PER_HOUR):
        way = Release.LINK if number % 2 else Release.REVEAL
        await (world.releaser.create_link if way is Release.LINK else world.releaser.reveal)(world.ask(record, way))
        world.clock.moment += timedelta(minutes=1)


async def test_links_and_reveals_of_a_key_are_limited_together_and_say_when_to_come_again(world: World) -> None:
    record = await world.sealed()
    await use_up(world, record)
    entries = len(world.audit.entries)
    for _ in range(3):
        with pytest.raises(ReleaseLimit) as raised:
            await world.releaser.reveal(world.ask(record))
        assert raised.value.retry_after == NOON + HOUR - world.clock.now()
    assert len(world.audit.entries) == entries, "asking on does not fill the log"
    assert world.keys.told.count("key.release_limited") == 1
    world.clock.moment = NOON + HOUR
    await world.releaser.reveal(world.ask(record))
    with pytest.raises(ReleaseLimit):
        await world.releaser.reveal(world.ask(record))


async def test_another_key_is_not_limited_by_it(world: World) -> None:
    record = await world.sealed()
    await use_up(world, record)
    other = await world.sealer.seal(a_seal(b"another", source_ref="kinguin:2:1"))
    await world.releaser.reveal(world.ask(other))


async def test_a_repeat_is_not_counted_and_not_limited(world: World) -> None:
    record = await world.sealed()
    first = world.ask(record)
    for _ in range(MOST_PER_HOUR + 1):
        await world.releaser.reveal(first)
    assert world.keys.only_key().reveal_count == 1
    for _ in range(MOST_PER_HOUR - 1):
        await world.releaser.reveal(world.ask(record))
    await world.releaser.reveal(first)


async def test_the_limit_holds_for_all_who_ask_at_once(world: World) -> None:
    record = await world.sealed()
    answers = await asyncio.gather(
        *(world.releaser.reveal(world.ask(record)) for _ in range(3 * MOST_PER_HOUR)), return_exceptions=True
    )
    assert sum(isinstance(answer, str) for answer in answers) == MOST_PER_HOUR
    assert {type(answer) for answer in answers} == {str, ReleaseLimit}
    assert world.keys.only_key().reveal_count == MOST_PER_HOUR
    # Those that were authorized and not released say so.
    failed = [fact for fact in world.keys.rows.outbox.values() if fact.action == "key.reveal_failed"]
    assert len(world.audit.entries) == MOST_PER_HOUR + len(failed)
    assert {fact.details["reason"] for fact in failed} <= {"RELEASE_LIMIT"}


async def test_a_stranger_learns_nothing_of_the_limit(world: World) -> None:
    record = await world.sealed()
    await use_up(world, record)
    with pytest.raises(KeyNotFound):
        await world.releaser.reveal(world.ask(record, viewer=BOB))


async def test_a_release_stands_in_the_log_with_what_support_needs(world: World) -> None:
    record = await world.sealed()
    request = world.ask(record, Release.LINK)
    await world.releaser.create_link(request)
    ((key_id, line),) = world.keys.rows.deliveries
    assert (key_id, line.act, line.time, line.request_id) == (record.key_id, Act.LINK_ISSUED, NOON, request.request_id)
    assert (line.caller, line.network, line.device) == ("", "192.0.0.0/16", "Browser")
    assert "192.0" not in repr(line)


# Accesses


def news(world: World) -> list[str]:
    return [
        fact.details["news"] for fact in world.keys.rows.outbox.values() if fact.action == "vault.key.unusual_access"
    ]


async def access(world: World, record: KeyRecord, viewer: Viewer) -> None:
    await world.releaser.reveal(world.ask(record, viewer=viewer))


async def test_the_first_access_is_not_unusual_and_the_same_again_is_not(world: World) -> None:
    record = await world.sealed()
    for _ in range(2):
        await access(world, record, ALICE)
    await access(world, record, replace(ALICE, ip_address="192.0.99.1", user_agent="Browser/2.0"))
    assert news(world) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"user_agent": "curl/8"}, "device"),
        ({"ip_address": "198.51.100.9"}, "network"),
        ({"ip_address": "198.51.100.9", "user_agent": "curl/8"}, "device,network"),
        ({"ip_address": "", "user_agent": ""}, None),
        ({"country_code": "FR"}, None),
    ],
    ids=["device", "network", "both", "nothing known", "first country"],
)
async def test_what_is_new_is_told_once(world: World, change: dict[str, str], told: str | None) -> None:
    record = await world.sealed()
    await access(world, record, ALICE)
    for _ in range(2):
        await access(world, record, replace(ALICE, **change))
    assert news(world) == ([told] if told else [])


async def test_another_country_is_unusual_whatever_the_network(world: World) -> None:
    record = await world.sealed()
    for country_code, address in (("DE", "192.0.2.7"), ("DE", "198.51.100.9"), ("FR", "192.0.2.7")):
        await access(world, record, replace(ALICE, country_code=country_code, ip_address=address))
    assert news(world) == ["country"]


async def test_an_owner_is_known_over_all_their_keys_and_by_nobody_elses(world: World) -> None:
    record = await world.sealed()
    other = await world.sealer.seal(a_seal(b"another", source_ref="kinguin:2:1"))
    theirs = await world.sealer.seal(a_seal(b"theirs", source_ref="kinguin:3:1", customer_id="bob"))
    await access(world, record, ALICE)
    await access(world, theirs, replace(ALICE, customer_id="bob", user_agent="curl/8"))
    assert news(world) == []
    await access(world, other, replace(ALICE, user_agent="curl/8"))
    assert news(world) == ["device"]
    stored = str(world.keys.rows.known)
    assert not any(word in stored for word in ("192.0", "Browser", "curl", "alice", "bob"))


async def test_an_access_that_hands_nothing_over_makes_nobody_known(world: World) -> None:
    record = await world.sealed()
    world.objects.objects.clear()
    with pytest.raises(Exception, match="does not open"):
        await access(world, record, ALICE)
    assert world.keys.rows.known == {}
