import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.failpoints import FailpointError, configure_failpoints
from chassis.secret import SecretBytes
from vault.crypto import open_sealed
from vault.domain.key import KeyRecord, KeyState
from vault.domain.taking_back import Shredding, opened_among, shredding_of, still_to_revoke
from vault.errors import (
    KeyCorrupted,
    KeyNotFound,
    KeyNotReady,
    KeyNotRevoked,
    KeyOpened,
    KeyRevoked,
    ObjectStoreUnavailable,
)
from vault.ports import Release
from vault.releasing import DownloadLink
from vault.taking_back import MOST_NAMED

from tests.unit.vault.fakes import GAME_KEY, NOON, World, a_revocation, a_seal, a_shredding, wrapped_dek

WAYS = pytest.mark.parametrize("way", list(Release), ids=lambda way: str(way.name).lower())
CASES = ("SEALING", "SEALED", "OPENED", "HELD", "REVOKED", "SHREDDED")


async def release(world: World, record: KeyRecord, way: Release = Release.REVEAL) -> DownloadLink | str:
    request = world.ask(record, way)
    return await (world.releaser.create_link(request) if way is Release.LINK else world.releaser.reveal(request))


async def interrupted(world: World, source_ref: str = "kinguin:1:1", step: str = "after_put") -> KeyRecord:
    """Begin to seal, die, and return the row."""
    configure_failpoints(f"vault.seal.{step}=error")
    with pytest.raises(FailpointError):
        await world.sealed(source_ref=source_ref)
    configure_failpoints("")
    return next(record for record in world.keys.rows.keys.values() if record.source_ref == source_ref)


async def in_case(world: World, case: str) -> KeyRecord:
    """Bring a key where the case says, by what brings keys there."""
    if case == "SEALING":
        return await interrupted(world)
    if case == "HELD":
        await world.sealed(source_ref="kinguin:0:1")
        held = await world.sealed()
        assert held.state is KeyState.HELD
        return held
    record = await world.sealed()
    if case == "OPENED":
        await release(world, record)
    if case in ("REVOKED", "SHREDDED"):
        await world.taker.revoke(a_revocation(record.key_id))
    if case == "SHREDDED":
        await world.taker.shred(a_shredding(record.key_id))
    return world.keys.rows.keys[record.key_id]


def now(world: World, record: KeyRecord) -> KeyRecord:
    return world.keys.rows.keys[record.key_id]


def actions(world: World) -> list[str]:
    return [action for action in world.keys.told if action not in ("key.sealed", "key.held")]


# Every state, every method


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("SEALING", KeyState.REVOKED),
        ("SEALED", KeyState.REVOKED),
        ("HELD", KeyState.REVOKED),
        ("REVOKED", KeyState.REVOKED),
        ("SHREDDED", KeyState.SHREDDED),
        ("OPENED", KeyOpened),
    ],
)
async def test_what_revoking_does_in_each_state(world: World, case: str, outcome: Any) -> None:
    record = await in_case(world, case)
    if isinstance(outcome, KeyState):
        (revoked,) = await world.taker.revoke(a_revocation(record.key_id))
        assert revoked == now(world, record)
        assert revoked.state is outcome
        assert revoked.revoke_time == NOON
        assert actions(world).count("key.revoked") == 1
    else:
        with pytest.raises(outcome) as raised:
            await world.taker.revoke(a_revocation(record.key_id))
        assert raised.value.metadata == {"opened_key_ids": record.key_id, "opened_count": "1"}
        assert now(world, record) == record
        assert "key.revoked" not in actions(world)


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("SEALING", KeyNotRevoked),
        ("SEALED", KeyNotRevoked),
        ("OPENED", KeyOpened),
        ("HELD", None),
        ("REVOKED", None),
        ("SHREDDED", None),
    ],
)
async def test_what_shredding_does_in_each_state(world: World, case: str, outcome: Any) -> None:
    record = await in_case(world, case)
    if outcome is None:
        shredded = await world.taker.shred(a_shredding(record.key_id))
        assert shredded == now(world, record)
        assert (shredded.state, shredded.dek, shredded.shred_time) == (KeyState.SHREDDED, None, NOON)
        assert record.object_name not in world.objects.objects
        assert actions(world).count("key.shredded") == actions(world).count("vault.key.shredded") == 1
    else:
        with pytest.raises(outcome):
            await world.taker.shred(a_shredding(record.key_id))
        assert now(world, record) == record
        assert record.object_name in world.objects.objects
        assert world.objects.deletes == []


@WAYS
@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("SEALING", KeyNotReady),
        ("HELD", KeyNotReady),
        ("REVOKED", KeyRevoked),
        ("SHREDDED", KeyRevoked),
        ("SEALED", None),
        ("OPENED", None),
    ],
)
async def test_what_releasing_does_in_each_state(world: World, way: Release, case: str, outcome: Any) -> None:
    record = await in_case(world, case)
    if outcome is None:
        await release(world, record, way)
        assert now(world, record).open_time == NOON
    else:
        with pytest.raises(outcome):
            await release(world, record, way)
        assert now(world, record) == record
        assert world.audit.entries == []


@pytest.mark.parametrize("case", CASES)
async def test_what_sealing_again_does_in_each_state(world: World, case: str) -> None:
    record = await in_case(world, case)
    again = await world.sealed()
    assert again.key_id == record.key_id
    assert again.state is (KeyState.SEALED if case == "SEALING" else record.state)
    assert again == now(world, record)


@pytest.mark.parametrize("case", CASES)
async def test_a_key_of_another_order_is_not_found_in_any_state(world: World, case: str) -> None:
    record = await in_case(world, case)
    with pytest.raises(KeyNotFound) as raised:
        await world.taker.revoke(a_revocation(record.key_id, order_id="order-2"))
    assert raised.value.metadata == {"key_ids": record.key_id}
    with pytest.raises(KeyNotFound):
        await world.taker.shred(a_shredding(record.key_id, order_id="order-2"))
    assert now(world, record) == record


async def test_the_rules_agree_with_one_another_in_every_state_opened_or_not() -> None:
    fresh = await _a_record()
    for state in KeyState:
        for open_time in (None, NOON):
            record = replace(fresh, state=state, open_time=open_time)
            assert opened_among([record]) == ([record.key_id] if open_time else [])
            assert still_to_revoke([record]) == ([] if record.is_taken_back else [record])
            if state is KeyState.SHREDDED:
                assert shredding_of(record) is Shredding.DONE
            elif open_time:
                assert shredding_of(record) is Shredding.OPENED


async def _a_record() -> KeyRecord:
    world = World()
    return await world.sealer._new_record(a_seal())


# All or nothing


async def three(world: World) -> list[KeyRecord]:
    return [
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))
        for number in range(3)
    ]


async def test_one_that_was_opened_keeps_all_of_them_from_being_revoked(world: World) -> None:
    records = await three(world)
    await release(world, records[1])
    before = world.keys.rows.copy()
    with pytest.raises(KeyOpened) as raised:
        await world.taker.revoke(a_revocation(*(record.key_id for record in records)))
    assert raised.value.metadata == {"opened_key_ids": records[1].key_id, "opened_count": "1"}
    assert world.keys.rows == before


async def test_one_that_is_unknown_keeps_all_of_them_from_being_revoked(world: World) -> None:
    records = await three(world)
    with pytest.raises(KeyNotFound) as raised:
        await world.taker.revoke(a_revocation(*(record.key_id for record in records), "none"))
    assert raised.value.metadata == {"key_ids": "none"}
    assert {record.state for record in world.keys.rows.keys.values()} == {KeyState.SEALED}


async def test_an_opened_key_of_another_order_is_not_given_away_by_the_error(world: World) -> None:
    opened = await world.sealed()
    await release(world, opened)
    with pytest.raises(KeyNotFound):
        await world.taker.revoke(a_revocation(opened.key_id, order_id="order-2"))


async def test_they_come_back_in_the_order_in_which_they_were_asked_for(world: World) -> None:
    ids = [record.key_id for record in await three(world)]
    for order in permutations(ids):
        assert [record.key_id for record in await world.taker.revoke(a_revocation(*order))] == list(order)
    assert actions(world) == ["key.revoked"] * 3


async def test_what_an_error_names_fits_into_a_trailer(world: World) -> None:
    records = [
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))
        for number in range(MOST_NAMED + 20)
    ]
    for record in records:
        await release(world, record, Release.LINK)
    with pytest.raises(KeyOpened) as raised:
        await world.taker.revoke(a_revocation(*(record.key_id for record in records)))
    assert raised.value.metadata["opened_count"] == str(MOST_NAMED + 20)
    assert len(raised.value.metadata["opened_key_ids"].split(",")) == MOST_NAMED


# Repeats


async def test_a_repeat_changes_nothing_and_another_body_is_refused(world: World) -> None:
    record = await world.sealed()
    request_id = str(uuid.uuid4())
    request = a_revocation(record.key_id, request_id=request_id)
    first = await world.taker.revoke(request)
    world.clock.moment += timedelta(days=1)
    assert await world.taker.revoke(request) == first
    assert await world.taker.revoke(a_revocation(record.key_id)) == first, "nor does another request"
    with pytest.raises(RequestIdReused):
        await world.taker.revoke(a_revocation(record.key_id, record.key_id, request_id=request_id))
    with pytest.raises(RequestIdReused):
        await world.taker.shred(a_shredding(record.key_id, request_id=request_id))
    assert now(world, record) == first[0]
    assert actions(world) == ["key.revoked"]


async def test_a_refused_request_may_be_made_again_under_its_id(world: World) -> None:
    record = await world.sealed()
    request = a_shredding(record.key_id)
    with pytest.raises(KeyNotRevoked):
        await world.taker.shred(request)
    await world.taker.revoke(a_revocation(record.key_id))
    assert (await world.taker.shred(request)).state is KeyState.SHREDDED


@pytest.mark.parametrize("step", ["before_commit", "after_commit"])
async def test_a_revocation_that_dies_is_all_there_or_not_at_all_and_finished_by_the_repeat(
    world: World, step: str
) -> None:
    ids = [record.key_id for record in await three(world)]
    request = a_revocation(*ids)
    configure_failpoints(f"vault.revoke.{step}=error")
    with pytest.raises(FailpointError):
        await world.taker.revoke(request)
    states = {record.state for record in world.keys.rows.keys.values()}
    assert states == {KeyState.SEALED if step == "before_commit" else KeyState.REVOKED}
    assert {record.state for record in await world.taker.revoke(request)} == {KeyState.REVOKED}
    assert actions(world) == ["key.revoked"] * 3


@pytest.mark.parametrize("step", ["before_commit", "before_delete", "after_delete"])
@pytest.mark.parametrize("same_request", [True, False])
async def test_a_shredding_that_dies_is_finished_by_the_repeat(world: World, step: str, *, same_request: bool) -> None:
    record = await in_case(world, "REVOKED")
    request = a_shredding(record.key_id)
    configure_failpoints(f"vault.shred.{step}=error")
    with pytest.raises(FailpointError):
        await world.taker.shred(request)
    if step == "before_delete":
        assert (now(world, record).dek, record.object_name in world.objects.objects) == (None, True)
    shredded = await world.taker.shred(request if same_request else a_shredding(record.key_id))
    assert shredded.state is KeyState.SHREDDED
    assert world.objects.objects == {}
    assert actions(world) == ["key.revoked", "key.shredded", "vault.key.shredded"]


async def test_shredding_answers_only_once_the_object_is_gone(world: World) -> None:
    record = await in_case(world, "REVOKED")
    request = a_shredding(record.key_id)
    world.objects.away = True
    for _ in range(2):
        with pytest.raises(ObjectStoreUnavailable):
            await world.taker.shred(request)
    assert now(world, record).dek is None, "nobody opens it from here on"
    assert record.object_name in world.objects.objects
    world.objects.away = False
    world.objects.loses_answers = True
    with pytest.raises(ObjectStoreUnavailable):
        await world.taker.shred(request)
    await world.taker.shred(request)
    assert world.objects.objects == {}


async def test_while_the_database_is_away_nothing_is_deleted(world: World) -> None:
    record = await in_case(world, "REVOKED")
    world.keys.away = True
    with pytest.raises(ServiceUnavailable):
        await world.taker.shred(a_shredding(record.key_id))
    with pytest.raises(ServiceUnavailable):
        await world.taker.revoke(a_revocation(record.key_id))
    assert world.objects.deletes == []


# What becomes of a sealing


@pytest.mark.parametrize("step", ["after_row", "before_put", "after_put", "before_commit"])
@pytest.mark.parametrize("shredded", [False, True])
async def test_a_key_that_is_taken_back_while_it_is_sealed_never_becomes_sealed(
    world: World, step: str, *, shredded: bool
) -> None:
    record = await interrupted(world, step=step)
    # Another replica is still at it, and goes on once the key is taken back.
    slower = world.sealer._finish(record, SecretBytes(GAME_KEY), bytes(32))
    await world.taker.revoke(a_revocation(record.key_id))
    if shredded:
        await world.taker.shred(a_shredding(record.key_id))
    expected = KeyState.SHREDDED if shredded else KeyState.REVOKED
    assert (await slower).state is expected
    again = await world.sealed()
    assert (again.key_id, again.state, again.seal_time) == (record.key_id, expected, None)
    assert "key.sealed" not in world.keys.told


async def test_an_object_that_is_put_after_it_was_deleted_is_deleted_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = world.objects.create

    async def late(name: str, data: bytes) -> None:
        record = world.keys.only_key()
        await world.taker.revoke(a_revocation(record.key_id))
        await world.taker.shred(a_shredding(record.key_id))
        await create(name, data)

    monkeypatch.setattr(world.objects, "create", late)
    assert (await world.sealed()).state is KeyState.SHREDDED
    assert world.objects.objects == {}


async def test_who_looks_for_a_free_name_finds_the_key_revoked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    record = await interrupted(world, step="before_put")
    world.objects.objects[record.object_name] = b"not ours"
    read = world.objects.read

    async def slow(name: str) -> bytes:
        await world.taker.revoke(a_revocation(record.key_id))
        return await read(name)

    monkeypatch.setattr(world.objects, "read", slow)
    revoked = await world.sealed()
    assert (revoked.state, revoked.generation) == (KeyState.REVOKED, 0)


async def test_a_key_that_we_gave_back_and_are_sold_again_is_held(world: World) -> None:
    record = await in_case(world, "SHREDDED")
    again = await world.sealed(source_ref="kinguin:2:1")
    assert again.state is KeyState.HELD
    assert again.key_id != record.key_id


# Of a release and a revocation one wins


@WAYS
@pytest.mark.parametrize("step", ["before_audit", "after_audit", "before_commit", "after_commit"])
async def test_a_release_that_died_leaves_a_key_that_can_be_revoked_unless_it_was_marked(
    world: World, way: Release, step: str
) -> None:
    record = await world.sealed()
    request = world.ask(record, way)
    configure_failpoints(f"vault.release.{step}=error")
    with pytest.raises(FailpointError):
        await (world.releaser.create_link(request) if way is Release.LINK else world.releaser.reveal(request))
    if step == "after_commit":
        with pytest.raises(KeyOpened):
            await world.taker.revoke(a_revocation(record.key_id))
        await (world.releaser.create_link(request) if way is Release.LINK else world.releaser.reveal(request))
    else:
        await world.taker.revoke(a_revocation(record.key_id))
        with pytest.raises(KeyRevoked):
            await (world.releaser.create_link(request) if way is Release.LINK else world.releaser.reveal(request))


@WAYS
async def test_a_key_that_is_revoked_while_it_is_opened_is_not_handed_over(
    world: World, way: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await world.sealed()
    append = world.audit.append

    async def slow(*args: Any, **kwargs: Any) -> int:
        sequence = await append(*args, **kwargs)
        await world.taker.revoke(a_revocation(record.key_id))
        return sequence

    monkeypatch.setattr(world.audit, "append", slow)
    with pytest.raises(KeyRevoked):
        await release(world, record, way)
    assert actions(world) == ["key.revoked", f"{way.value}_failed"]
    (failed,) = [fact for fact in world.keys.rows.outbox.values() if fact.action == f"{way.value}_failed"]
    assert failed.details == {"reason": "KEY_REVOKED"}
    assert not now(world, record).is_opened


async def test_a_key_that_is_destroyed_while_it_is_opened_is_revoked_and_no_corruption(
    world: World, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    record = await world.sealed()
    read = world.objects.read

    async def slow(name: str) -> bytes:
        await world.taker.revoke(a_revocation(record.key_id))
        await world.taker.shred(a_shredding(record.key_id))
        return await read(name)

    monkeypatch.setattr(world.objects, "read", slow)
    with pytest.raises(KeyRevoked):
        await release(world, record)
    assert [log for log in logs if log["log_level"] == "error"] == []


async def test_a_failed_release_opens_nothing(world: World) -> None:
    record = await world.sealed()
    kept = world.objects.objects.pop(record.object_name)
    with pytest.raises(KeyCorrupted):
        await release(world, record)
    assert not now(world, record).is_opened
    world.objects.objects[record.object_name] = kept
    (revoked,) = await world.taker.revoke(a_revocation(record.key_id))
    assert revoked.state is KeyState.REVOKED


async def test_the_first_opening_is_the_one_that_is_kept(world: World) -> None:
    record = await world.sealed()
    await release(world, record)
    world.clock.moment += timedelta(days=1)
    await release(world, record, Release.LINK)
    assert now(world, record).open_time == NOON


@WAYS
async def test_of_many_releases_and_revocations_at_once_each_key_is_either_opened_or_revoked(
    world: World, way: Release
) -> None:
    records = [
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))
        for number in range(40)
    ]

    async def attempt(coroutine: Any) -> bool:
        try:
            await coroutine
        except (KeyRevoked, KeyOpened):
            return False
        return True

    # Releases are several steps long: revocations start at all of them.
    async def later(record: KeyRecord, turns: int) -> bool:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await attempt(world.taker.revoke(a_revocation(record.key_id)))

    results = await asyncio.gather(
        *(attempt(release(world, record, way)) for record in records),
        *(later(record, number) for number, record in enumerate(records)),
    )
    released, revoked = results[:40], results[40:]
    assert [not one for one in released] == revoked
    assert any(released)
    assert any(revoked)
    for record, was_released in zip(records, released, strict=True):
        assert now(world, record).is_opened == was_released
        assert (now(world, record).state is KeyState.REVOKED) != was_released


async def test_a_shredded_key_opens_with_nothing_that_is_left(world: World) -> None:
    record = await world.sealed()
    sealed = world.objects.objects[record.object_name]
    await world.taker.revoke(a_revocation(record.key_id))
    shredded = await world.taker.shred(a_shredding(record.key_id))
    assert wrapped_dek(record).data.hex() not in repr(world.keys.rows)
    assert repr(wrapped_dek(record).data) not in repr(world.keys.rows)
    assert shredded.dek is None
    dek = world.dek(record)
    opened = open_sealed(sealed, dek, key_id=record.key_id, content_type=record.content_type, binding=record.binding)
    assert opened == SecretBytes(GAME_KEY), "it is the wrapped DEK that was destroyed, and nothing else opens it"
