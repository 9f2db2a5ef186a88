import asyncio
from datetime import timedelta

import pytest
from chassis.errors import RequestIdReused, ServiceUnavailable
from chassis.failpoints import FailpointError, configure_failpoints
from prometheus_client import REGISTRY
from vault.domain.delivery import Act
from vault.domain.key import KeyRecord, KeyState
from vault.errors import KeyExpired, KeyOpened
from vault.ports import Release
from vault.sweeping import BATCH, LONGEST_WAIT, MOST_BATCHES, Swept

from tests.unit.vault.fakes import NOON, RETENTION, World, a_revocation, a_seal, a_shredding

DAY = timedelta(days=1)
DIGEST = bytes(32)


async def opened(world: World, number: int = 1) -> KeyRecord:
    record = await world.sealer.seal(a_seal(f"KEY-{number}".encode(), source_ref=f"kinguin:{number}:1"))
    await world.releaser.reveal(world.ask(record))
    return record


def state(world: World, record: KeyRecord) -> KeyState:
    return world.keys.rows.keys[record.key_id].state


def left() -> tuple[float | None, float | None]:
    return (
        REGISTRY.get_sample_value("keyferry_vault_objects_left"),
        REGISTRY.get_sample_value("keyferry_vault_objects_left_age_seconds"),
    )


async def test_a_key_is_kept_until_its_retention_after_the_opening_has_passed(world: World) -> None:
    record = await opened(world)
    world.clock.moment += RETENTION.opened - timedelta(seconds=1)
    assert await world.sweeper.sweep() == Swept()
    assert state(world, record) is KeyState.SEALED
    world.clock.moment += timedelta(seconds=1)
    assert await world.sweeper.sweep() == Swept(1, 1)
    ended = world.keys.rows.keys[record.key_id]
    assert (ended.state, ended.dek, ended.expire_time) == (KeyState.SHREDDED, None, world.clock.now())
    assert ended.object_delete_time == world.clock.now()
    assert world.objects.objects == {}
    assert await world.sweeper.sweep() == Swept()


async def test_a_key_that_nobody_opens_is_kept_for_longer(world: World) -> None:
    record = await world.sealed()
    world.clock.moment += RETENTION.opened * 2
    assert await world.sweeper.sweep() == Swept()
    world.clock.moment = NOON + RETENTION.unopened
    assert await world.sweeper.sweep() == Swept(1, 1)
    assert state(world, record) is KeyState.SHREDDED


async def test_an_end_is_told_to_audit_to_the_shop_and_in_the_log(world: World) -> None:
    record = await opened(world)
    world.clock.moment += RETENTION.opened
    await world.sweeper.sweep()
    told = [name for name in world.keys.told if "expired" in name or "shredded" in name]
    assert sorted(told) == ["key.expired", "key.shredded", "vault.key.expired", "vault.key.shredded"]
    lines = [(line.act, line.caller) for _, line in world.keys.rows.deliveries]
    assert lines == [(Act.REVEALED, ""), (Act.EXPIRED, "vault"), (Act.SHREDDED, "vault")]
    with pytest.raises(KeyExpired):
        await world.releaser.create_link(world.ask(record, Release.LINK))
    with pytest.raises(KeyOpened):
        await world.taker.revoke(a_revocation(record.key_id))


async def test_with_the_store_away_the_dek_goes_and_the_object_follows_later(world: World) -> None:
    record = await opened(world)
    world.clock.moment += RETENTION.opened
    world.objects.away = True
    assert await world.sweeper.sweep() == Swept(1, 0)
    assert world.keys.rows.keys[record.key_id].dek is None
    assert world.objects.objects, "it is still there, and opens for nobody"
    waits = []
    for _ in range(12):
        due, _ = world.keys.rows.objects_due[record.key_id]
        waits.append(due - world.clock.now())
        world.clock.moment = due - timedelta(seconds=1)
        tries = len(world.objects.deletes)
        await world.sweeper.sweep()
        assert world.keys.rows.objects_due[record.key_id][0] == due, "not asked before its time"
        world.clock.moment = due
        await world.sweeper.sweep()
        assert len(world.objects.deletes) == tries
    assert waits[:3] == [timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120)]
    assert max(waits) == LONGEST_WAIT
    age = world.clock.now() - (NOON + RETENTION.opened)
    assert left() == (1, age.total_seconds())
    world.objects.away = False
    world.clock.moment += LONGEST_WAIT
    assert await world.sweeper.sweep() == Swept(0, 1)
    assert world.objects.objects == {}
    assert left() == (0, 0)


@pytest.mark.parametrize(
    "place",
    [
        "vault.sweep.after_expire",
        "vault.sweep.after_lease",
        "vault.shred.before_delete",
        "vault.shred.after_delete",
        "vault.shred.after_note",
    ],
)
async def test_wherever_a_sweep_ends_the_next_one_finishes_it(world: World, place: str) -> None:
    record = await opened(world)
    world.clock.moment += RETENTION.opened
    configure_failpoints(f"{place}=error")
    with pytest.raises(FailpointError):
        await world.sweeper.sweep()
    configure_failpoints("")
    assert state(world, record) is KeyState.SHREDDED
    world.clock.moment += DAY
    await world.sweeper.sweep()
    assert world.objects.objects == {}
    assert world.keys.rows.keys[record.key_id].object_delete_time is not None
    assert world.keys.told.count("key.expired") == 1


async def test_a_sweep_that_dies_before_its_commit_has_done_nothing(world: World) -> None:
    record = await opened(world)
    world.clock.moment += RETENTION.opened
    configure_failpoints("vault.sweep.before_expire=error")
    with pytest.raises(FailpointError):
        await world.sweeper.sweep()
    assert state(world, record) is KeyState.SEALED
    assert "key.expired" not in world.keys.told


async def test_a_shredding_whose_deletion_fails_is_finished_by_the_sweep(world: World) -> None:
    record = await world.sealed()
    await world.taker.revoke(a_revocation(record.key_id))
    configure_failpoints("vault.shred.before_delete=error")
    with pytest.raises(FailpointError):
        await world.taker.shred(a_shredding(record.key_id))
    assert await world.sweeper.sweep() == Swept(), "whoever destroyed it may still be at it"
    world.clock.moment += DAY
    assert await world.sweeper.sweep() == Swept(0, 1)
    assert world.objects.objects == {}


async def test_one_round_is_bounded_and_says_that_there_is_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault.sweeping.BATCH", 2)
    monkeypatch.setattr("vault.sweeping.MOST_BATCHES", 2)
    assert BATCH * MOST_BATCHES >= 1000
    for number in range(5):
        await opened(world, number)
    world.clock.moment += RETENTION.opened
    assert await world.sweeper.sweep() == Swept(4, 4, more=True)
    assert await world.sweeper.sweep() == Swept(1, 1)


async def test_a_request_sweeps_once(world: World) -> None:
    await opened(world)
    world.clock.moment += RETENTION.opened
    first = await world.sweeper.answer("r-1", DIGEST)
    assert first == Swept(1, 1)
    await opened(world, 2)
    world.clock.moment += RETENTION.opened
    assert await world.sweeper.answer("r-1", DIGEST) == first
    with pytest.raises(RequestIdReused):
        await world.sweeper.answer("r-1", bytes(31) + b"x")
    assert await world.sweeper.answer("r-2", DIGEST) == Swept(1, 1)


async def test_a_database_that_is_away_puts_it_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    async def wait(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("vault.sweeping.asyncio.sleep", wait)
    world.keys.away = True
    with pytest.raises(ServiceUnavailable):
        await world.sweeper.sweep()
    with pytest.raises(asyncio.CancelledError):
        await world.sweeper.run()
    assert all(0.5 <= seconds <= 1.5 for seconds in rounds)
