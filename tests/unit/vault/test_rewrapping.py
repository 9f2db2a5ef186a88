import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from chassis.errors import RequestIdReused
from chassis.secret import SecretBytes
from vault import rewrapping
from vault.adapters.kek_keyring import KeyringKeks
from vault.crypto import Kek
from vault.domain.key import KeyState, WrappedDek
from vault.errors import KekNotActive, KeyEncryptionUnavailable, RewrapRunning, SecretVersionMissing
from vault.ports import Release, Rewrapped
from vault.rewrapping import MOST_ROUNDS, Progress, Rewrapper, RewrapRequest
from vault.wrapping import KeyEncryption

from tests.unit.vault.fakes import (
    NOON,
    MemoryWrappedDeks,
    World,
    a_keyring,
    a_seal,
    a_shredding,
    a_wish,
    wrapped_dek,
)

BATCH = 20


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "BATCH", BATCH)


def a_request(active_version: str = "", request_id: str = "", digest: bytes = b"digest") -> RewrapRequest:
    return RewrapRequest(a_wish(request_id, "operator", "a rotation"), digest, active_version)


async def seal_some(world: World, count: int) -> None:
    for number in range(count):
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))


def rotate(world: World, *versions: str) -> None:
    world.kek = Kek(a_keyring(*(versions or ("v2", "v1"))))


async def progress_of(world: World, request: RewrapRequest | None = None) -> list[Progress]:
    return [progress async for progress in world.rewrapper.run(request or a_request())]


def versions_of(world: World) -> set[str | None]:
    return {None if record.dek is None else record.dek.kek_version for record in world.keys.rows.keys.values()}


async def check_some_open(world: World) -> None:
    for record in list(world.keys.rows.keys.values())[::4]:
        await world.releaser.reveal(world.ask(record))


async def test_every_dek_is_moved_and_every_key_opens_and_no_object_is_touched(world: World) -> None:
    await seal_some(world, 2 * BATCH + 7)
    before = {key_id: world.dek(record) for key_id, record in world.keys.rows.keys.items()}
    puts = world.objects.puts
    rotate(world)
    told = await progress_of(world)
    assert versions_of(world) == {"v2"}
    assert {key_id: world.dek(record) for key_id, record in world.keys.rows.keys.items()} == before
    assert (world.objects.puts, world.objects.deletes) == (puts, [])
    total = 2 * BATCH + 7
    assert (told[0].done, told[0].remaining, told[0].active_version) == (0, total, "v2")
    assert all(progress.done + progress.remaining == total for progress in told)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert (told[-1].done, told[-1].remaining, told[-1].failed) == (total, 0, 0)
    assert [(use.version, use.keys, use.may_be_retired) for use in told[-1].uses] == [
        ("v2", total, False),
        ("v1", 0, True),
    ]
    assert all(not progress.uses for progress in told[:-1])
    rotate(world, "v2")
    await world.releaser.create_link(world.ask(next(iter(world.keys.rows.keys.values())), Release.LINK))


async def test_what_is_moved_already_is_left_alone_and_nothing_at_all_is_fine(world: World) -> None:
    assert [progress.done for progress in await progress_of(world)] == [0, 0]
    await seal_some(world, 3)
    rows = dict(world.keys.rows.keys)
    told = await progress_of(world)
    assert [(progress.done, progress.remaining) for progress in told] == [(0, 0), (0, 0)]
    assert world.keys.rows.keys == rows


async def test_revoked_held_and_unfinished_keys_are_moved_too_and_shredded_ones_are_not(world: World) -> None:
    await seal_some(world, 4)
    sealed, revoked, held, shredded = list(world.keys.rows.keys.values())
    rows = world.keys.rows.keys
    rows[revoked.key_id] = replace(revoked, state=KeyState.REVOKED, revoke_time=NOON)
    rows[held.key_id] = replace(held, state=KeyState.SEALING)
    rows[shredded.key_id] = replace(shredded, state=KeyState.REVOKED, revoke_time=NOON)
    await world.taker.shred(a_shredding(shredded.key_id))
    rotate(world)
    assert (await progress_of(world))[-1].done == 3
    assert {world.keys.rows.keys[each.key_id].dek is None for each in (sealed, revoked, held)} == {False}
    assert world.keys.rows.keys[shredded.key_id].dek is None


async def test_one_that_does_not_open_is_named_and_stays_and_stops_no_other(world: World) -> None:
    await seal_some(world, 5)
    bad = list(world.keys.rows.keys.values())[2]
    broken = WrappedDek(bytes(60), "v1")
    world.keys.rows.keys[bad.key_id] = replace(bad, dek=broken)
    rotate(world)
    told = await progress_of(world)
    assert (told[-1].done, told[-1].failed, told[-1].remaining) == (4, 1, 0)
    assert [key_id for progress in told for key_id in progress.failed_key_ids] == [bad.key_id]
    assert world.keys.rows.keys[bad.key_id].dek == broken
    assert [(use.version, use.keys, use.may_be_retired) for use in told[-1].uses] == [
        ("v2", 4, False),
        ("v1", 1, False),
    ]
    (_, finished) = world.deks.told[-1]
    assert finished.counts == {"rewrapped": 4, "failed": 1, "remaining": 0}


async def test_audit_hears_of_the_beginning_and_the_end_once_per_request(world: World) -> None:
    await seal_some(world, 2)
    rotate(world)
    request = a_request()
    await progress_of(world, request)
    await progress_of(world, request)
    assert [action for action, _ in world.deks.told] == ["keks.rewrap_started", "keks.rewrap_finished"]
    started, finished = (report for _, report in world.deks.told)
    assert (started.active_version, started.counts, started.wish.caller) == ("v2", {"keys": 2}, "operator")
    assert finished.counts == {"rewrapped": 2, "failed": 0, "remaining": 0}
    with pytest.raises(RequestIdReused):
        await progress_of(world, replace(request, digest=b"another"))


async def test_a_replica_that_has_another_active_version_moves_nothing_back(world: World) -> None:
    await seal_some(world, 2)
    with pytest.raises(KekNotActive) as raised:
        await progress_of(world, a_request("v2"))
    assert raised.value.metadata == {"active_version": "v1"}
    assert world.deks.told == []
    rotate(world)
    assert (await progress_of(world, a_request("v2")))[-1].done == 2


async def test_a_replica_that_lacks_a_version_in_use_begins_nothing(world: World) -> None:
    await seal_some(world, 2)
    rotate(world, "v2")
    with pytest.raises(SecretVersionMissing) as raised:
        await progress_of(world)
    assert raised.value.metadata == {"versions": "v1", "keys": "2"}
    assert world.deks.told == []


async def test_a_call_that_ends_early_is_gone_on_with_by_the_next(world: World) -> None:
    await seal_some(world, 3 * BATCH)
    rotate(world)
    running = world.rewrapper.run(a_request())
    async for progress in running:
        if progress.done:
            break
    await running.aclose()
    assert versions_of(world) == {"v1", "v2"}
    await check_some_open(world)
    assert (await progress_of(world))[-1].remaining == 0
    assert versions_of(world) == {"v2"}


async def test_two_at_once_share_the_work_and_one_replica_does_it_once(world: World) -> None:
    await seal_some(world, 2 * BATCH)
    rotate(world)
    told = await asyncio.gather(progress_of(world), progress_of(world))
    assert versions_of(world) == {"v2"}
    assert sum(progresses[-1].done for progresses in told) == 2 * BATCH
    one = world.rewrapper
    first = one.run(a_request())
    await anext(first)
    with pytest.raises(RewrapRunning):
        await anext(one.run(a_request()))
    await first.aclose()
    assert [progress.remaining async for progress in one.run(a_request())] == [0, 0]


class Interfering(MemoryWrappedDeks):
    """Lets something happen between a batch's reading and its writing."""

    async def replace(self, pieces: Sequence[Rewrapped]) -> Collection[str]:
        await self.meanwhile()
        return await super().replace(pieces)

    async def meanwhile(self) -> None:
        raise NotImplementedError


async def test_a_key_that_is_destroyed_meanwhile_stays_destroyed(world: World) -> None:
    await seal_some(world, 3)
    gone = list(world.keys.rows.keys)[1]

    class Shredding(Interfering):
        async def meanwhile(self) -> None:
            record = world.keys.rows.keys[gone]
            world.keys.rows.keys[gone] = replace(record, state=KeyState.SHREDDED, dek=None, shred_time=NOON)

    world.deks = Shredding(world.keys)
    rotate(world)
    told = await progress_of(world)
    assert world.keys.rows.keys[gone].dek is None
    assert (told[-1].done, told[-1].remaining) == (2, 0)


async def test_a_row_that_somebody_holds_is_looked_at_again(world: World) -> None:
    await seal_some(world, 3)
    held = next(iter(world.keys.rows.keys))
    rounds = 0

    class Holding(Interfering):
        async def meanwhile(self) -> None:
            nonlocal rounds
            rounds += 1
            self.held = {held} if rounds < 3 else set()

    world.deks = Holding(world.keys)
    rotate(world)
    told = await progress_of(world)
    assert (told[-1].done, told[-1].remaining) == (3, 0)
    assert world.clock.moment > NOON, "not at once again"


async def test_a_row_that_is_never_let_go_is_left_for_the_next_call(world: World) -> None:
    await seal_some(world, 3)
    world.deks.held = {next(iter(world.keys.rows.keys))}
    rotate(world)
    told = await progress_of(world)
    assert (told[-1].done, told[-1].remaining, told[-1].failed) == (2, 1, 0)
    assert world.clock.moment - NOON < timedelta(seconds=MOST_ROUNDS)
    assert [use.may_be_retired for use in told[-1].uses] == [False, False]
    world.deks.held = set()
    assert (await progress_of(world))[-1].done == 1


class Failing(KeyringKeks):
    """Does not answer any more after some batches."""

    left = 1

    async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
        if not self.left:
            raise KeyEncryptionUnavailable("transit does not answer")
        self.left -= 1
        return await super().wrap(deks)


async def test_a_rotation_meanwhile_is_followed(world: World) -> None:
    await seal_some(world, 2 * BATCH)
    rotate(world)

    class Rotating(KeyringKeks):
        left = 1

        async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
            if not self.left:
                self._kek = Kek(a_keyring("v3", "v2", "v1"))
            self.left -= 1
            return await super().wrap(deks)

    rewrapper = Rewrapper(world.deks, KeyEncryption(Rotating(world.kek)), clock=world.clock)
    told = [progress async for progress in rewrapper.run(a_request())]
    assert versions_of(world) == {"v3"}
    assert (told[0].active_version, told[-1].active_version, told[-1].remaining) == ("v2", "v3", 0)
    assert [use.version for use in told[-1].uses if use.may_be_retired] == ["v1", "v2"]


async def test_an_outage_ends_it_and_what_was_moved_stays_moved(world: World) -> None:
    await seal_some(world, 2 * BATCH)
    rotate(world)
    failing = Rewrapper(world.deks, KeyEncryption(Failing(world.kek)), clock=world.clock)
    with pytest.raises(KeyEncryptionUnavailable):
        _ = [progress async for progress in failing.run(a_request())]
    assert versions_of(world) == {"v1", "v2"}
    assert [action for action, _ in world.deks.told] == ["keks.rewrap_started"]
    await check_some_open(world)
    assert (await progress_of(world))[-1].remaining == 0


async def test_sealing_and_opening_go_on_meanwhile(world: World) -> None:
    await seal_some(world, 2 * BATCH)
    records = list(world.keys.rows.keys.values())
    rotate(world)
    number = 0
    async for _ in world.rewrapper.run(a_request()):
        await world.releaser.reveal(world.ask(records[number]))
        await world.sealer.seal(a_seal(f"new {number}".encode(), source_ref=f"kinguin:2:{number}"))
        number += 1
    assert number > 2
    assert versions_of(world) == {"v2"}
    assert {wrapped_dek(record).kek_version for record in world.keys.rows.keys.values()} == {"v2"}
