import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from chassis.errors import KeyferryError, RequestIdReused, ServiceUnavailable
from chassis.failpoints import FailpointError, configure_failpoints
from chassis.secret import SecretBytes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap
from joserfc import jwe
from joserfc.jwk import OctKey
from vault.crypto import Digests, Kek, read_recipient, seal
from vault.domain.key import KeyRecord, KeyState, WrappedDek
from vault.errors import (
    AuditUnavailable,
    KeyCorrupted,
    KeyNotFound,
    KeyNotReady,
    LinkExpired,
    ObjectStoreUnavailable,
    SecretVersionMissing,
)
from vault.opening import READS
from vault.ports import Release
from vault.releasing import DownloadLink, ReleaseRequest, request_digest

from tests.unit.vault.fakes import (
    ALICE,
    BOB,
    FAKE_OBJECT_LIMIT,
    GAME_KEY,
    NOON,
    MemoryTransaction,
    Recipient,
    World,
    a_keyring,
    a_seal,
    wrapped_dek,
)
from tests.unit.vault.jose_by_hand import decode

WAYS = pytest.mark.parametrize("way", list(Release), ids=lambda way: str(way.name).lower())


async def release(world: World, way: Release, request: ReleaseRequest) -> DownloadLink | str:
    if way is Release.LINK:
        return await world.releaser.create_link(request)
    return await world.releaser.reveal(request)


async def refused(world: World, way: Release, request: ReleaseRequest, error: type[KeyferryError]) -> KeyferryError:
    with pytest.raises(error) as raised:
        await release(world, way, request)
    return raised.value


def header_of(token: str) -> dict[str, Any]:
    return dict(json.loads(decode(token.partition(".")[0])))


def told_since_sealing(world: World) -> list[str]:
    return [action for action in world.keys.told if not action.startswith(("key.sealed", "key.held"))]


# What the owner gets


async def test_a_link_and_its_content_key_open_the_key_in_the_owners_hands(world: World) -> None:
    record = await world.sealed()
    link = await world.releaser.create_link(world.ask(record))
    stored = world.objects.objects[record.object_name]
    assert link.object_sha256 == hashlib.sha256(stored).digest()
    dek = world.recipient.open(link.content_key_jwe)
    assert jwe.decrypt_compact(stored.decode(), OctKey.import_key(dek)).plaintext == GAME_KEY
    assert record.object_name in link.url


async def test_a_reveal_is_the_key_itself_for_the_recipient_only(world: World) -> None:
    record = await world.sealed()
    token = await world.releaser.reveal(world.ask(record))
    assert world.recipient.open(token) == GAME_KEY
    assert header_of(token)["cty"] == "text/plain"
    with pytest.raises(InvalidUnwrap):
        Recipient().open(token)


async def test_a_picture_keeps_its_type_on_the_way_out(world: World) -> None:
    record = await world.sealer.seal(a_seal(b"\x89PNG...", content_type="image/png"))
    token = await world.releaser.reveal(world.ask(record))
    assert header_of(token)["cty"] == "image/png"
    assert world.recipient.open(token) == b"\x89PNG..."


async def test_nothing_that_is_handed_over_shows_itself_when_printed(world: World) -> None:
    record = await world.sealed()
    request = world.ask(record)
    link = await world.releaser.create_link(request)
    assert link.url not in repr(link)
    assert link.content_key_jwe not in repr(link)
    assert "192.0.2.7" not in repr(request)


# Links live 15 minutes


async def test_a_link_lives_fifteen_minutes_and_a_fresh_one_can_be_had_at_any_time(world: World) -> None:
    record = await world.sealed()
    first = await world.releaser.create_link(world.ask(record))
    assert first.expire_time == NOON + timedelta(minutes=15)
    assert world.objects.signed == [(record.object_name, timedelta(minutes=15))]
    world.clock.moment += timedelta(days=30)
    fresh = await world.releaser.create_link(world.ask(record))
    assert fresh.expire_time == world.clock.now() + timedelta(minutes=15)


@WAYS
async def test_a_repeat_is_signed_within_the_first_expiry_and_counts_once(world: World, way: Release) -> None:
    record = await world.sealed()
    request = world.ask(record, way)
    first = await release(world, way, request)
    world.clock.moment += timedelta(minutes=10)
    second = await release(world, way, request)
    assert len(world.audit.entries) == 1
    assert told_since_sealing(world) == [f"{way.value}_released", "vault.key.opened"]
    if isinstance(first, DownloadLink) and isinstance(second, DownloadLink):
        assert second.expire_time == first.expire_time
        assert world.objects.signed[-1] == (record.object_name, timedelta(minutes=5))
        assert world.recipient.open(second.content_key_jwe) == world.recipient.open(first.content_key_jwe)
    assert first != second, "each answer is encrypted anew"


@WAYS
@pytest.mark.parametrize(
    ("after", "expired"),
    [
        (timedelta(minutes=14, seconds=55), False),
        (timedelta(minutes=14, seconds=56), True),
        (timedelta(minutes=15), True),
        (timedelta(days=1), True),
    ],
)
async def test_a_repeat_after_the_first_expiry_needs_a_new_request(
    world: World, way: Release, after: timedelta, *, expired: bool
) -> None:
    record = await world.sealed()
    request = world.ask(record, way)
    await release(world, way, request)
    world.clock.moment += after
    if expired:
        await refused(world, way, request, LinkExpired)
    await release(world, way, world.ask(record, way) if expired else request)


@WAYS
async def test_a_repeat_is_authorized_again(world: World, way: Release) -> None:
    record = await world.sealed()
    request = world.ask(record, way)
    await release(world, way, request)
    world.keys.rows.keys[record.key_id] = replace(record, binding=world.digests.bind("order-1", "bob"))
    await refused(world, way, request, KeyNotFound)


@WAYS
async def test_a_request_id_with_another_body_is_refused(world: World, way: Release) -> None:
    record = await world.sealed()
    first = world.ask(record, way)
    await release(world, way, first)
    world.recipient = Recipient()
    again = world.ask(record, way, request_id=first.request_id)
    raised = await refused(world, way, again, RequestIdReused)
    assert raised.metadata == {"request_id": first.request_id}
    assert len(world.audit.entries) == 1


async def test_a_request_id_is_not_shared_by_link_and_reveal(world: World) -> None:
    record = await world.sealed()
    request = world.ask(record, Release.LINK)
    await world.releaser.create_link(request)
    reveal = world.ask(record, Release.REVEAL, request_id=request.request_id)
    await refused(world, Release.REVEAL, reveal, RequestIdReused)


async def test_of_two_bodies_under_one_request_id_at_once_one_is_refused(world: World) -> None:
    record = await world.sealed()
    request = world.ask(record)
    other = Recipient()
    rival = replace(request, digest=request_digest(b"other"), recipient=read_recipient(other.jwk))
    results = await asyncio.gather(world.releaser.reveal(request), world.releaser.reveal(rival), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["RequestIdReused", "str"]


# Nobody else gets anything


@WAYS
async def test_a_stranger_learns_nothing_and_is_written_down(world: World, way: Release) -> None:
    record = await world.sealed()
    foreign = await refused(world, way, world.ask(record, way, viewer=BOB), KeyNotFound)
    absent = await refused(world, way, world.ask(record, way, viewer=BOB, key_id="none"), KeyNotFound)
    assert (foreign.message, foreign.metadata) == (absent.message, absent.metadata)
    assert told_since_sealing(world) == ["key.access_denied"]
    (denied,) = [fact for fact in world.keys.rows.outbox.values() if fact.action == "key.access_denied"]
    assert (denied.actor, denied.key_id) == ("bob", record.key_id)
    assert world.audit.entries == []
    assert world.objects.signed == []


@WAYS
async def test_the_owners_key_under_another_order_is_no_key(world: World, way: Release) -> None:
    record = await world.sealed()
    await refused(world, way, world.ask(record, way, order_id="order-2"), KeyNotFound)
    assert told_since_sealing(world) == ["key.access_denied"]


async def test_a_stranger_cannot_hide_a_second_try_behind_the_first_ones_request_id(world: World) -> None:
    one = await world.sealed()
    two = await world.sealer.seal(a_seal(b"another", source_ref="kinguin:1:2"))
    for record in (one, two):
        await refused(world, Release.REVEAL, world.ask(record, viewer=BOB, request_id="r-1"), KeyNotFound)
    assert told_since_sealing(world) == ["key.access_denied"] * 2


@WAYS
@pytest.mark.parametrize("state", [KeyState.SEALING, KeyState.HELD])
async def test_a_key_that_is_not_sealed_or_held_is_not_released(world: World, way: Release, state: KeyState) -> None:
    record = await world.sealed()
    world.keys.rows.keys[record.key_id] = replace(record, state=state)
    raised = await refused(world, way, world.ask(record, way), KeyNotReady)
    assert raised.metadata == {"state": state.name}
    await refused(world, way, world.ask(record, way, viewer=BOB), KeyNotFound)
    assert world.audit.entries == []


# No audit, no key


@WAYS
async def test_the_audit_entry_is_durable_before_anything_else_happens(world: World, way: Release) -> None:
    record = await world.sealed()
    world.keys.journal.clear()
    request = world.ask(record, way)
    await release(world, way, request)
    assert world.keys.journal == ["audit", "commit", "commit"]
    (entry,) = world.audit.entries
    assert (entry.action, entry.request_id) == (f"{way.value}_authorized", request.request_id)
    assert (entry.customer_id, entry.order_id, entry.key_id) == ("alice", "order-1", record.key_id)


@WAYS
async def test_without_audit_nothing_is_released_signed_opened_or_told(world: World, way: Release) -> None:
    record = await world.sealed()
    world.audit.away = True
    reads = count_reads(world)
    request = world.ask(record, way)
    await refused(world, way, request, AuditUnavailable)
    assert world.objects.signed == []
    assert reads == []
    assert told_since_sealing(world) == []
    assert world.keys.rows.authorizations == {}
    world.audit.away = False
    await release(world, way, request)


def count_reads(world: World) -> list[str]:
    names: list[str] = []
    read = world.objects.read

    async def counted(name: str) -> bytes:
        names.append(name)
        return await read(name)

    world.objects.read = counted  # type: ignore[method-assign] # a spy on the fake
    return names


@WAYS
async def test_without_the_database_nothing_is_released(world: World, way: Release) -> None:
    record = await world.sealed()
    world.keys.away = True
    await refused(world, way, world.ask(record, way), ServiceUnavailable)
    assert world.audit.entries == []


@WAYS
@pytest.mark.parametrize("step", ["before_audit", "after_audit", "before_commit", "after_commit"])
async def test_a_crash_at_any_step_is_finished_by_the_repeat_and_counts_once(
    world: World, way: Release, step: str
) -> None:
    record = await world.sealed()
    request = world.ask(record, way)
    configure_failpoints(f"vault.release.{step}=error")
    with pytest.raises(FailpointError):
        await release(world, way, request)
    await release(world, way, request)
    assert len(world.audit.entries) == 1
    assert told_since_sealing(world) == [f"{way.value}_released", "vault.key.opened"]


@WAYS
async def test_the_outcome_is_committed_before_the_answer(world: World, way: Release) -> None:
    record = await world.sealed()
    configure_failpoints("vault.release.after_commit=error")
    with pytest.raises(FailpointError):
        await release(world, way, world.ask(record, way))
    assert told_since_sealing(world) == [f"{way.value}_released", "vault.key.opened"]


# What was damaged


async def failed_reason(world: World, way: Release) -> str:
    (fact,) = [fact for fact in world.keys.rows.outbox.values() if fact.action == f"{way.value}_failed"]
    assert "vault.key.opened" not in world.keys.told
    return fact.details["reason"]


def flip(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@WAYS
@pytest.mark.parametrize("damage", ["missing", "one bit", "another key's", "empty", "huge"])
async def test_a_damaged_object_is_corrupted_told_and_never_handed_over(
    world: World, damage: str, way: Release, logs: list[MutableMapping[str, Any]]
) -> None:
    record = await world.sealed()
    other = await world.sealer.seal(a_seal(b"another", source_ref="kinguin:1:2"))
    objects = world.objects.objects
    good = objects.pop(record.object_name)
    damaged = {
        "one bit": flip(good),
        "another key's": objects[other.object_name],
        "empty": b"",
        "huge": b"x" * (FAKE_OBJECT_LIMIT + 1),
    }
    if damage in damaged:
        objects[record.object_name] = damaged[damage]
    raised = await refused(world, way, world.ask(record, way), KeyCorrupted)
    assert raised.metadata == {"key_id": record.key_id}
    assert await failed_reason(world, way) == "KEY_CORRUPTED"
    assert [log["what"] for log in logs if log["log_level"] == "error"] == ["object"]


async def test_an_object_whose_digest_and_content_were_both_changed_does_not_open(world: World) -> None:
    record = await world.sealed()
    forged = flip(world.objects.objects[record.object_name])
    world.objects.objects[record.object_name] = forged
    world.keys.rows.keys[record.key_id] = replace(record, object_sha256=hashlib.sha256(forged).digest())
    await refused(world, Release.REVEAL, world.ask(record), KeyCorrupted)


async def test_an_object_that_opens_but_is_not_the_one_that_was_confirmed_is_corrupted(world: World) -> None:
    record = await world.sealed()
    other = seal(
        SecretBytes(b"another game key"),
        world.dek(record),
        key_id=record.key_id,
        content_type=record.content_type,
        binding=record.binding,
    )
    world.objects.objects[record.object_name] = other
    await refused(world, Release.REVEAL, world.ask(record), KeyCorrupted)


async def test_rows_that_were_swapped_do_not_open_one_anothers_objects(world: World) -> None:
    mine = await world.sealed()
    theirs = await world.sealer.seal(a_seal(b"another", source_ref="kinguin:1:2", customer_id="bob"))
    stolen = replace(theirs, binding=mine.binding, order_id=mine.order_id)
    world.keys.rows.keys[theirs.key_id] = stolen
    await refused(world, Release.REVEAL, world.ask(stolen), KeyCorrupted)


@WAYS
async def test_a_wrapped_dek_that_does_not_open_is_corrupted(world: World, way: Release) -> None:
    record = await world.sealed()
    bad: KeyRecord = replace(record, dek=WrappedDek(flip(wrapped_dek(record).data), "v1"))
    world.keys.rows.keys[record.key_id] = bad
    await refused(world, way, world.ask(record, way), KeyCorrupted)
    assert await failed_reason(world, way) == "KEY_CORRUPTED"


@WAYS
async def test_a_kek_that_this_replica_lacks_is_no_corruption(world: World, way: Release) -> None:
    record = await world.sealed()
    kek, world.kek = world.kek, Kek(a_keyring("v9"))
    request = world.ask(record, way)
    await refused(world, way, request, SecretVersionMissing)
    world.kek = kek
    await release(world, way, request)


async def test_a_digest_secret_that_this_replica_lacks_denies_nobody(world: World) -> None:
    record = await world.sealed()
    world.digests = Digests(a_keyring("v9"))
    await refused(world, Release.REVEAL, world.ask(record), SecretVersionMissing)
    assert told_since_sealing(world) == []


@WAYS
async def test_while_the_store_is_away_nothing_is_handed_over_and_nothing_counts_as_opened(
    world: World, way: Release
) -> None:
    record = await world.sealed()
    world.objects.away = True
    request = world.ask(record, way)
    await refused(world, way, request, ObjectStoreUnavailable)
    assert await failed_reason(world, way) == "OBJECT_STORE_UNAVAILABLE"
    assert world.keys.only_key().open_time is None
    world.objects.away = False
    await release(world, way, request)


@WAYS
async def test_what_is_another_object_on_the_way_only_is_read_again_and_no_corruption(
    world: World, way: Release
) -> None:
    record = await world.sealed()
    read, reads = world.objects.read, list[str]()

    async def flipped_once(name: str) -> bytes:
        reads.append(name)
        data = await read(name)
        return flip(data) if len(reads) == 1 else data

    world.objects.read = flipped_once  # type: ignore[method-assign] # a fault that passes
    await release(world, way, world.ask(record, way))
    assert len(reads) == READS


async def test_a_failure_that_nobody_foresaw_is_told_too(world: World) -> None:
    record = await world.sealed()

    async def broken(name: str, lifetime: timedelta) -> str:
        raise LookupError(name, lifetime)

    world.objects.presign = broken  # type: ignore[method-assign] # the fake breaks in a way of its own
    with pytest.raises(LookupError):
        await world.releaser.create_link(world.ask(record))
    assert await failed_reason(world, Release.LINK) == "INTERNAL"


async def test_the_first_failure_reaches_the_caller_even_when_it_cannot_be_told(
    world: World, logs: list[MutableMapping[str, Any]]
) -> None:
    record = await world.sealed()
    world.objects.objects[record.object_name] = b"changed"
    transactions = 0
    transaction = world.keys.transaction

    @asynccontextmanager
    async def away_after_two() -> AsyncIterator[MemoryTransaction]:
        nonlocal transactions
        transactions += 1
        world.keys.away = transactions > 3
        async with transaction() as one:
            yield one

    world.keys.transaction = away_after_two  # type: ignore[method-assign] # goes away in the middle of a request
    await refused(world, Release.REVEAL, world.ask(record), KeyCorrupted)
    assert "the outcome could not be told" in {log["event"] for log in logs}


async def test_neither_logs_nor_rows_nor_audit_hold_what_was_handed_over(
    world: World, logs: list[MutableMapping[str, Any]]
) -> None:
    record = await world.sealed()
    link = await world.releaser.create_link(world.ask(record))
    token = await world.releaser.reveal(world.ask(record))
    everything = repr((world.keys.rows, world.audit.entries, logs, await world.sealed(), ALICE))
    dek = world.dek(record)
    for secret in (GAME_KEY.decode(), dek.expose().hex(), link.url, link.content_key_jwe, token, "192.0.2.7"):
        assert secret not in everything
