import hashlib

import pytest
from chassis.errors import RequestIdReused
from chassis.failpoints import FailpointError, configure_failpoints
from vault.domain.key import NOBODY, KeyRecord, KeyState
from vault.erasing import Erased, EraseRequest
from vault.errors import KeyNotFound, KeysUnopened
from vault.ports import Viewer

from tests.unit.vault.fakes import ALICE, GAME_KEY, World, a_revocation, a_seal, a_wish


def erasure(customer_id: str = "alice", *, forfeit: bool = False, request_id: str = "r-1") -> EraseRequest:
    digest = hashlib.sha256(f"{customer_id}{forfeit}".encode()).digest()
    return EraseRequest(a_wish(request_id, reason="asked to"), digest, customer_id, forfeit)


async def sealed(world: World, number: int, customer_id: str = "alice", order_id: str = "order-1") -> KeyRecord:
    return await world.sealer.seal(
        a_seal(f"KEY-{number}".encode(), source_ref=f"kinguin:{number}:1", customer_id=customer_id, order_id=order_id)
    )


def present(world: World, record: KeyRecord) -> KeyRecord:
    return world.keys.rows.keys[record.key_id]


async def test_what_was_opened_is_destroyed_and_nothing_personal_is_left(world: World) -> None:
    opened, theirs = await sealed(world, 1), await sealed(world, 2, "bob", "order-2")
    await world.releaser.reveal(world.ask(opened))
    await world.releaser.reveal(world.ask(theirs, viewer=Viewer("bob", "", "192.0.2.7", "Browser/1.0")))
    assert await world.eraser.erase(erasure()) == Erased(shredded_count=1)
    gone = present(world, opened)
    assert (gone.state, gone.dek, gone.binding.owner) == (KeyState.SHREDDED, None, NOBODY)
    assert list(world.objects.objects) == [theirs.object_name]
    lines = {key_id: (line.network, line.device) for key_id, line in world.keys.rows.deliveries if not line.caller}
    assert lines == {opened.key_id: ("", ""), theirs.key_id: ("192.0.0.0/16", "Browser")}
    assert {owner for owner, _, _ in world.keys.rows.known} == {theirs.binding.owner}
    with pytest.raises(KeyNotFound):
        await world.releaser.reveal(world.ask(opened))
    told = [fact for fact in world.keys.rows.outbox.values() if fact.action == "customer.keys_erased"]
    assert [fact.details["shredded_count"] for fact in told] == ["1"]
    assert "alice" not in str(told)


async def test_what_was_paid_for_and_never_opened_refuses_everything_and_names_its_orders(world: World) -> None:
    opened = await sealed(world, 1)
    await world.releaser.reveal(world.ask(opened))
    for number, order_id in ((2, "order-9"), (3, "order-9"), (4, "order-2")):
        await sealed(world, number, order_id=order_id)
    before = world.keys.rows
    with pytest.raises(KeysUnopened) as raised:
        await world.eraser.erase(erasure())
    assert raised.value.metadata == {"unopened_count": "3", "order_ids": "order-2,order-9"}
    assert world.keys.rows.keys == before.keys
    assert await world.eraser.erase(erasure(forfeit=True, request_id="r-2")) == Erased(shredded_count=4)
    assert world.objects.objects == {}


async def test_what_is_revoked_or_held_stays_for_the_supplier_but_is_nobodys(world: World) -> None:
    revoked, held = await sealed(world, 1), await sealed(world, 1, order_id="order-1")
    await world.taker.revoke(a_revocation(revoked.key_id))
    again = await world.sealer.seal(a_seal(b"KEY-1", source_ref="kinguin:7:1"))
    assert (held.key_id, again.state) == (revoked.key_id, KeyState.HELD)
    assert await world.eraser.erase(erasure()) == Erased(kept_count=2)
    assert [present(world, each).state for each in (revoked, again)] == [KeyState.REVOKED, KeyState.HELD]
    assert {present(world, each).binding.owner for each in (revoked, again)} == {NOBODY}
    assert (await world.sealer.seal(a_seal(b"KEY-1", source_ref="kinguin:7:1"))).key_id == again.key_id


async def test_a_repeat_answers_the_same_and_does_nothing(world: World) -> None:
    record = await sealed(world, 1)
    await world.releaser.reveal(world.ask(record))
    first = await world.eraser.erase(erasure())
    later = await sealed(world, 2)
    assert await world.eraser.erase(erasure()) == first
    assert present(world, later).state is KeyState.SEALED
    with pytest.raises(RequestIdReused):
        await world.eraser.erase(erasure(forfeit=True))


@pytest.mark.parametrize("place", ["before_batch", "after_batch", "before_finish", "after_finish"])
async def test_wherever_it_dies_the_repeat_finishes_it(
    world: World, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault.erasing.BATCH", 2)
    for number in range(3):
        await world.releaser.reveal(world.ask(await sealed(world, number)))
    configure_failpoints(f"vault.erase.{place}=error")
    with pytest.raises(FailpointError):
        await world.eraser.erase(erasure())
    configure_failpoints("")
    await world.eraser.erase(erasure())
    assert {record.state for record in world.keys.rows.keys.values()} == {KeyState.SHREDDED}
    assert world.keys.rows.known == {}
    assert world.keys.told.count("customer.keys_erased") == 1
    assert world.keys.told.count("key.shredded") == 3


async def test_with_the_store_away_objects_are_left_to_the_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vault.erasing.BATCH", 2)
    for number in range(5):
        await world.releaser.reveal(world.ask(await sealed(world, number)))
    world.objects.away = True
    assert await world.eraser.erase(erasure()) == Erased(shredded_count=5, object_pending_count=5)
    world.objects.away = False
    world.clock.moment += 2 * (world.clock.moment - world.clock.moment.replace(hour=0))
    await world.sweeper.sweep()
    assert world.objects.objects == {}


async def test_a_customer_of_whom_nothing_is_known_is_forgotten_too(world: World) -> None:
    await world.sealed(GAME_KEY)
    assert await world.eraser.erase(erasure("mallory")) == Erased()
    assert ALICE.customer_id not in str(erasure())
