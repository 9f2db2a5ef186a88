import asyncio
import hashlib
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.failpoints import FailpointError, configure_failpoints
from chassis.secret import SecretBytes
from vault.crypto import Digests, Kek, open_sealed
from vault.domain.key import KeyRecord, KeyState, WrappedDek
from vault.errors import KeyCorrupted, ObjectStoreUnavailable, SecretVersionMissing, SourceRefConflict
from vault.sealing import MOST_TRIES

from tests.unit.vault.fakes import (
    FAKE_OBJECT_LIMIT,
    GAME_KEY,
    NOON,
    MemoryTransaction,
    World,
    a_keyring,
    a_seal,
    wrapped_dek,
)

STEPS = (
    "vault.seal.before_row",
    "vault.seal.after_row",
    "vault.seal.before_put",
    "vault.seal.after_put",
    "vault.seal.before_commit",
    "vault.seal.after_commit",
)


def opened(world: World, record: KeyRecord) -> SecretBytes:
    return open_sealed(
        world.objects.objects[record.object_name],
        world.dek(record),
        key_id=record.key_id,
        content_type=record.content_type,
        binding=record.binding,
    )


async def test_a_sealed_key_is_one_row_and_one_object_that_opens(world: World) -> None:
    record = await world.sealed()
    assert record == world.keys.only_key()
    assert record.state is KeyState.SEALED
    assert record.seal_time == NOON
    assert world.objects.objects.keys() == {f"keys/{record.key_id}"}
    assert record.object_sha256 == hashlib.sha256(world.objects.objects[record.object_name]).digest()
    assert opened(world, record) == SecretBytes(GAME_KEY)
    assert world.keys.told == ["key.sealed"]


async def test_the_same_source_again_is_the_same_key_and_told_once(world: World) -> None:
    first = await world.sealed()
    world.clock.moment += timedelta(hours=1)
    assert await world.sealed(request_id="another") == first
    assert world.objects.puts == 1
    assert world.keys.told == ["key.sealed"]


@pytest.mark.parametrize(
    "other",
    [
        a_seal(b"another game key"),
        a_seal(order_id="order-2"),
        a_seal(item_id="item-2"),
        a_seal(customer_id="bob"),
        a_seal(content_type="image/png"),
    ],
    ids=["key", "order", "item", "owner", "content type"],
)
async def test_something_else_under_a_known_source_is_a_conflict(world: World, other: Any) -> None:
    record = await world.sealed()
    with pytest.raises(SourceRefConflict) as raised:
        await world.sealer.seal(other)
    assert raised.value.metadata == {"key_id": record.key_id}
    assert world.keys.only_key() == record
    assert opened(world, record) == SecretBytes(GAME_KEY)


async def test_a_request_id_of_another_source_is_refused_and_nothing_is_stored(world: World) -> None:
    record = await world.sealed(request_id="r-1")
    with pytest.raises(RequestIdReused):
        await world.sealed(request_id="r-1", source_ref="kinguin:1:2")
    assert world.keys.only_key() == record
    assert len(world.objects.objects) == 1


async def test_a_key_sold_to_us_twice_is_held_back_and_told(world: World, logs: list[MutableMapping[str, Any]]) -> None:
    first = await world.sealed()
    second = await world.sealed(source_ref="kinguin:2:1", order_id="order-2", customer_id="bob")
    assert (first.state, second.state) == (KeyState.SEALED, KeyState.HELD)
    assert world.keys.told == ["key.sealed", "key.held"]
    (held,) = [fact for fact in world.keys.rows.outbox.values() if fact.action == "key.held"]
    assert held.details == {"same_as": first.key_id}
    assert (first.same_key_id, second.same_key_id) == (None, first.key_id)
    assert opened(world, second) == SecretBytes(GAME_KEY)
    assert [log["key_id"] for log in logs if log["log_level"] == "error"] == [second.key_id]
    third = await world.sealed(source_ref="kinguin:3:1")
    assert third.state is KeyState.HELD


async def test_a_key_sold_twice_is_found_under_a_retained_secret(world: World) -> None:
    await world.sealed()
    world.digests = Digests(a_keyring("v3", "v2"))
    twice = await world.sealed(source_ref="kinguin:2:1")
    assert twice.fingerprint.startswith("v3.")
    assert twice.state is KeyState.HELD


async def test_a_key_has_a_fingerprint_under_every_retained_secret_so_that_no_replica_misses_it(world: World) -> None:
    # One replica has the newer version already, the other has not heard of it.
    world.digests = Digests(a_keyring("v3", "v2"))
    first = await world.sealed()
    assert first.fingerprint.startswith("v3.")
    assert [fingerprint.partition(".")[0] for fingerprint in first.other_fingerprints] == ["v2"]
    world.digests = Digests(a_keyring("v2"))
    twice = await world.sealed(source_ref="kinguin:2:1")
    assert (twice.state, twice.same_key_id) == (KeyState.HELD, first.key_id)


async def test_the_same_source_is_recognised_under_a_retained_secret(world: World) -> None:
    first = await world.sealed()
    world.digests = Digests(a_keyring("v3", "v2"))
    assert await world.sealed() == first


async def test_a_replica_without_the_digest_secret_decides_nothing(world: World) -> None:
    await world.sealed()
    world.digests = Digests(a_keyring("v3"))
    with pytest.raises(SecretVersionMissing) as raised:
        await world.sealed()
    assert raised.value.metadata == {"version": "v2"}


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_is_finished_by_the_repeat(world: World, step: str) -> None:
    configure_failpoints(f"{step}=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    record = await world.sealed()
    assert record.state is KeyState.SEALED
    assert record == world.keys.only_key()
    assert world.objects.objects.keys() == {record.object_name}
    assert opened(world, record) == SecretBytes(GAME_KEY)
    assert world.keys.told == ["key.sealed"]


@pytest.mark.parametrize("step", sorted({*STEPS} - {"vault.seal.after_row", "vault.seal.after_commit"}))
async def test_a_step_that_kills_every_try_leaves_nothing_double(world: World, step: str) -> None:
    configure_failpoints(f"{step}=error@*")
    for _ in range(3):
        with pytest.raises(FailpointError):
            await world.sealed()
    configure_failpoints("")
    assert (await world.sealed()).state is KeyState.SEALED
    assert len(world.objects.objects) == len(world.keys.rows.keys) == 1
    assert world.keys.told == ["key.sealed"]


async def test_many_at_once_make_one_row_and_one_object(world: World) -> None:
    records = await asyncio.gather(*(world.sealed(request_id=f"r-{number}") for number in range(20)))
    assert {record.key_id for record in records} == {world.keys.only_key().key_id}
    assert all(record == records[0] for record in records)
    assert world.objects.objects.keys() == {records[0].object_name}
    assert world.keys.told == ["key.sealed"]


async def test_of_two_that_miss_one_anothers_row_the_later_takes_the_earlier_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await world.sealed()
    look = MemoryTransaction.key_by_source
    looks: list[str] = []

    async def too_early(transaction: MemoryTransaction, source_ref: str) -> KeyRecord | None:
        looks.append(source_ref)
        return None if len(looks) == 1 else await look(transaction, source_ref)

    monkeypatch.setattr(MemoryTransaction, "key_by_source", too_early)
    assert await world.sealed(request_id="another") == first
    assert world.keys.only_key() == first


async def test_one_game_key_from_many_sources_at_once_is_sealed_once_and_else_held(world: World) -> None:
    records = await asyncio.gather(*(world.sealed(source_ref=f"kinguin:{number}:1") for number in range(10)))
    assert sorted(record.state.name for record in records) == ["HELD"] * 9 + ["SEALED"]
    assert sorted(world.keys.told) == ["key.held"] * 9 + ["key.sealed"]


async def test_who_comes_second_to_the_commit_does_not_tell_another_story(world: World) -> None:
    configure_failpoints("vault.seal.before_commit=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    waiting = world.keys.only_key()
    first = await world.sealed()
    held = await world.sealed(source_ref="kinguin:2:1")
    # The slower replica comes back to commit, now that another key has this fingerprint too.
    finished = await world.sealer._finish(waiting, SecretBytes(GAME_KEY), first.object_sha256 or b"")
    assert finished == first
    assert world.keys.told == ["key.sealed", "key.held"]
    assert held.state is KeyState.HELD


async def test_a_lost_answer_to_the_put_costs_nothing(world: World) -> None:
    world.objects.loses_answers = True
    with pytest.raises(ObjectStoreUnavailable):
        await world.sealed()
    record = await world.sealed()
    assert record.generation == 0
    assert world.objects.objects.keys() == {record.object_name}
    assert opened(world, record) == SecretBytes(GAME_KEY)


async def test_while_the_store_is_away_the_key_waits_in_sealing(world: World) -> None:
    world.objects.away = True
    for _ in range(3):
        with pytest.raises(ObjectStoreUnavailable):
            await world.sealed()
    assert world.keys.only_key().state is KeyState.SEALING
    assert world.keys.told == []
    world.objects.away = False
    assert (await world.sealed()).state is KeyState.SEALED


async def test_while_the_database_is_away_nothing_is_put(world: World) -> None:
    world.keys.away = True
    with pytest.raises(ServiceUnavailable):
        await world.sealed()
    assert world.objects.puts == 0


async def test_a_store_that_does_not_show_what_it_took_is_asked_again_under_the_same_name(world: World) -> None:
    world.objects.forgets = True
    with pytest.raises(ObjectStoreUnavailable):
        await world.sealed()
    world.objects.forgets = False
    assert (await world.sealed()).generation == 0


@pytest.mark.parametrize("alien", [b"", b"not ours", b"x" * (FAKE_OBJECT_LIMIT + 1)], ids=["empty", "other", "huge"])
async def test_an_object_that_is_not_ours_is_left_alone_and_the_next_name_taken(world: World, alien: bytes) -> None:
    configure_failpoints("vault.seal.before_put=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    key_id = world.keys.only_key().key_id
    world.objects.objects[f"keys/{key_id}"] = alien
    record = await world.sealed()
    assert record.object_name == f"keys/{key_id}.1"
    assert world.objects.objects[f"keys/{key_id}"] == alien
    assert opened(world, record) == SecretBytes(GAME_KEY)


async def test_another_keys_object_under_this_name_is_not_taken_for_ours(world: World) -> None:
    other = await world.sealed(source_ref="kinguin:9:9")
    configure_failpoints("vault.seal.before_put=error")
    with pytest.raises(FailpointError):
        await world.sealer.seal(a_seal(b"another game key"))
    (waiting,) = [record for record in world.keys.rows.keys.values() if record.key_id != other.key_id]
    world.objects.objects[waiting.object_name] = world.objects.objects[other.object_name]
    record = await world.sealer.seal(a_seal(b"another game key"))
    assert record.generation == 1
    assert opened(world, record) == SecretBytes(b"another game key")


async def test_it_gives_up_when_every_name_is_taken(world: World) -> None:
    configure_failpoints("vault.seal.before_put=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    key_id = world.keys.only_key().key_id
    names = [f"keys/{key_id}", *(f"keys/{key_id}.{number}" for number in range(1, MOST_TRIES))]
    world.objects.objects.update(dict.fromkeys(names, b"not ours"))
    with pytest.raises(ObjectStoreUnavailable, match="no name was free"):
        await world.sealed()
    assert (await world.sealed()).object_name == f"keys/{key_id}.{MOST_TRIES}"


async def test_who_finds_the_name_moved_on_by_another_replica_follows(world: World) -> None:
    configure_failpoints("vault.seal.before_commit=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    behind = world.keys.only_key()
    async with world.keys.transaction() as transaction:
        await transaction.next_generation(behind)
        await transaction.next_generation(behind)
    assert world.keys.only_key().generation == 1
    moved = await world.sealer._finish(behind, SecretBytes(GAME_KEY), bytes(32))
    assert (moved.state, moved.generation) == (KeyState.SEALING, 1)
    assert world.keys.told == []
    record = await world.sealed()
    assert (record.state, record.generation) == (KeyState.SEALED, 1)


async def test_a_wrapped_dek_that_was_changed_is_corrupted_and_never_sealed_anew(world: World) -> None:
    configure_failpoints("vault.seal.before_put=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    record = world.keys.only_key()
    world.keys.rows.keys[record.key_id] = replace(record, dek=WrappedDek(bytes(60), wrapped_dek(record).kek_version))
    with pytest.raises(KeyCorrupted):
        await world.sealed()
    assert world.objects.puts == 0


async def test_a_replica_without_the_kek_leaves_the_key_to_the_others(world: World) -> None:
    configure_failpoints("vault.seal.before_put=error")
    with pytest.raises(FailpointError):
        await world.sealed()
    kek, world.kek = world.kek, Kek(a_keyring("v7"))
    with pytest.raises(SecretVersionMissing):
        await world.sealed()
    world.kek = kek
    assert (await world.sealed()).state is KeyState.SEALED


async def test_nothing_stored_told_or_logged_holds_the_key_or_its_dek(
    world: World, logs: list[MutableMapping[str, Any]]
) -> None:
    record = await world.sealed()
    dek = world.dek(record).expose()
    everything = repr((world.keys.rows, world.objects.objects, logs)).encode() + b"".join(
        world.objects.objects.values()
    )
    assert GAME_KEY not in everything
    for secret in (dek, dek.hex().encode(), repr(dek).strip("b'").encode()):
        assert secret not in everything
    assert dek not in wrapped_dek(record).data
