"""What was given up is taken back step by step: each answer, and keys that arrive or are opened in between."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from fulfillment.domain.model import ItemId, KeyId, OrderId, Reason, State
from fulfillment.ports.supplier import InDoubt, NoAnswer, ReturnRefused, ReturnUnderWay
from fulfillment.ports.vault import NoWord, RevokeAnswer, SomeOpened
from fulfillment.taking_back import MOST_ROUNDS
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentKeyReady

from tests.unit.fulfillment.fakes import FakeVault, collected, found, key_ids
from tests.unit.fulfillment.office import Office, a_refund


@pytest.fixture
def office() -> Office:
    return Office()


async def nothing() -> None:
    """Nothing happens meanwhile."""


class SlowVault(FakeVault):
    """Lets something happen before it answers."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    async def revoke_keys(self, order_id: OrderId, key_ids: Sequence[KeyId], *, why: str) -> RevokeAnswer:
        await self.meanwhile()
        return await super().revoke_keys(order_id, key_ids, why=why)


async def ready(office: Office) -> None:
    await office.buy(2)
    await office.settle()


@pytest.mark.parametrize("answer", [InDoubt(None), NoAnswer()])
async def test_a_withdrawal_is_asked_for_until_it_is_answered(office: Office, answer: InDoubt | NoAnswer) -> None:
    await office.buy(2)
    await office.cancel()
    office.supplier.withdrawing = [answer] * 3
    await office.work()
    assert office.states() == [State.WITHDRAWING]
    assert not office.canceled()
    await office.settle()
    assert office.states() == [State.CANCELED]
    assert office.supplier.asked["withdraw"] == 4


async def test_what_was_sold_before_it_could_be_withdrawn_goes_back(office: Office) -> None:
    await office.buy(2)
    await office.cancel()
    office.supplier.sell(office.purchase())
    await office.settle()
    purchase = office.purchase()
    assert (purchase.state, bool(purchase.supplier_order_id)) == (State.CANCELED, True)
    assert set(office.supplier.given_back) == {purchase.external_id}


async def test_a_late_placed_answer_to_a_withdrawal_is_kept_for_whoever_looks(office: Office) -> None:
    await office.buy(2)
    await office.cancel()
    (claimed,) = await office.claim()
    await office.place(state=State.NEEDS_ATTENTION, reason=Reason.GIVE_UP_TOO_OLD)
    office.supplier.sell(office.purchase())
    version = (await office.found()).version
    await office.progress.act(claimed)
    assert office.purchase().supplier_order_id
    assert (await office.found()).version == version + 1


async def test_revoked_keys_are_shown_to_nobody_and_destroyed_after_they_went_back(office: Office) -> None:
    await ready(office)
    await office.refund()
    await office.work()
    assert office.vault.revoked == set(key_ids(office.purchase()))
    assert not [key for key in office.sealed() if key.is_openable]
    assert office.states() == [State.RETURNING]
    office.supplier.returning = [ReturnUnderWay()]
    await office.work()
    assert not office.vault.shredded
    await office.settle()
    assert office.vault.shredded == office.vault.revoked


async def test_without_a_word_from_vault_nothing_is_revoked(office: Office) -> None:
    await ready(office)
    await office.refund()
    office.vault.is_away = True
    await office.work()
    assert office.states() == [State.REVOKING]
    assert all(key.is_openable for key in office.sealed())
    office.vault.is_away = False
    await office.settle()
    assert office.states() == [State.REFUNDED]


async def test_a_key_that_vault_knows_to_be_opened_is_noted_before_its_event_comes(office: Office) -> None:
    await ready(office)
    first, second = key_ids(office.purchase())
    office.vault.opened = {first}
    await office.refund()
    await office.settle()
    assert (office.purchase().state, office.purchase().reason) == (State.NEEDS_ATTENTION, Reason.RETURN_REFUSED)
    assert [(key.open_time is None, key.revoke_time is None) for key in office.sealed()] == [
        (False, True),
        (True, False),
    ]
    assert office.vault.revoked == {second}
    assert not office.supplier.given_back
    assert office.purchase().canceled_quantity == 1


async def test_what_was_opened_whole_stays_delivered(office: Office) -> None:
    await ready(office)
    office.vault.opened = set(key_ids(office.purchase()))
    await office.refund()
    await office.settle()
    assert office.states() == [State.DELIVERED]
    assert not office.canceled()
    assert not office.supplier.given_back


async def test_keys_that_are_opened_while_they_are_revoked_are_asked_about_again(office: Office) -> None:
    await ready(office)
    first, _ = key_ids(office.purchase())
    await office.refund()
    office.vault.revoking = [SomeOpened([first])]
    office.vault.opened = {first}
    await office.settle()
    assert office.purchase().reason is Reason.RETURN_REFUSED


async def test_vault_is_asked_so_often_and_then_later(office: Office) -> None:
    await ready(office)
    await office.refund()
    office.vault.revoking = [*[SomeOpened([])] * MOST_ROUNDS, NoWord()]
    await office.work()
    assert office.states() == [State.REVOKING]
    assert len(office.vault.revoking) == 1


@pytest.mark.parametrize("state", [State.REVOKING, State.RETURNING, State.SHREDDING])
async def test_a_key_that_arrives_after_it_was_given_up_is_revoked_too(office: Office, state: State) -> None:
    """A collecting worker was answered late: nobody may open what it brings, and the supplier gets it back."""
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1)]
    await office.work()
    office.clock.pass_seconds(60)
    (late,) = await office.claim()
    await office.refund()
    for _ in range(9):
        if office.states() == [state]:
            break
        await office.work()
        office.clock.pass_seconds(1)
    office.supplier.collecting = [collected(office.purchase(), 2)]
    await office.progress.act(late)
    assert office.states() == [State.REVOKING]
    assert len(office.orders.told(FulfillmentKeyReady)) == 1
    await office.settle()
    assert office.states() == [State.REFUNDED]
    assert office.vault.shredded == set(key_ids(office.purchase()))


@pytest.mark.parametrize(("give_up", "end"), [(Office.cancel, State.CANCELED), (Office.refund, State.REFUNDED)])
async def test_a_key_that_arrives_when_all_is_over_is_revoked_too(
    office: Office, give_up: Callable[[Office], Awaitable[object]], end: State
) -> None:
    await office.buy(1)
    await office.work()
    (late,) = await office.claim()
    await give_up(office)
    await office.settle()
    assert (office.states(), office.vault.revoked) == ([end], set())
    await office.progress.act(late)
    assert office.states() == [end]
    assert office.vault.revoked == set(key_ids(office.purchase()))
    assert not [key for key in office.sealed() if key.is_openable]
    assert not office.orders.told(FulfillmentKeyReady)


@pytest.mark.parametrize("give_up", [Office.cancel, Office.refund])
async def test_a_key_whose_name_was_never_told_is_revoked_and_destroyed_as_the_others_are(
    office: Office, give_up: Callable[[Office], Awaitable[object]]
) -> None:
    """The answer of a collection was lost, then nobody collects any more: vault alone knows of the key."""
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [NoAnswer()]
    await office.work()
    office.vault.untold = [found(office.purchase()), found(office.purchase(), 1, held=True)]
    await give_up(office)
    await office.work()
    assert (office.states(), office.vault.revoked) == ([State.RETURNING], set(key_ids(office.purchase())))
    await office.settle()
    assert office.vault.shredded == set(key_ids(office.purchase()))
    assert not [key for key in office.sealed() if key.is_openable]
    assert not office.orders.told(FulfillmentKeyReady)


async def test_keys_of_something_else_in_the_same_order_are_left_alone(office: Office) -> None:
    await office.buy(1)
    await office.work()
    await office.cancel()
    own = office.purchase()
    office.vault.untold = [
        found(own, supplier_order_id="PHS-another", key_id=KeyId("another")),
        found(own, supplier_order_id="", key_id=KeyId("uploaded")),
        found(own, item_id=ItemId("item-9"), key_id=KeyId("of another line")),
    ]
    await office.settle()
    assert (office.states(), office.vault.revoked) == ([State.CANCELED], set())


async def test_what_was_sold_and_opened_before_a_database_was_restored_is_not_taken_back(office: Office) -> None:
    """Our rows forgot that it was bought; its owner did not forget the key."""
    await office.buy(2)
    await office.cancel()
    office.supplier.sell(office.purchase())
    first, second = key_ids(office.purchase())
    office.vault.untold = [found(office.purchase(), open_time=office.clock.now()), found(office.purchase(), 1)]
    office.vault.opened = {first}
    await office.settle()
    assert (office.states(), office.reasons()) == ([State.NEEDS_ATTENTION], [Reason.RETURN_REFUSED])
    assert (office.vault.revoked, office.supplier.given_back) == ({second}, {})
    assert office.purchase().canceled_quantity == 1


@pytest.mark.parametrize("state", [State.REVOKING, State.SHREDDING])
async def test_nothing_is_over_before_vault_has_said_what_it_has(office: Office, state: State) -> None:
    await ready(office)
    await office.refund()
    while office.states() != [state]:
        await office.work()
        office.clock.pass_seconds(1)
    office.vault.is_away = True
    for _ in range(3):
        await office.work()
        office.clock.pass_seconds(10)
    assert office.states() == [state]
    office.vault.is_away = False
    await office.settle()
    assert office.states() == [State.REFUNDED]


async def test_a_key_that_was_sealed_while_the_others_went_back_is_found_before_all_is_over(office: Office) -> None:
    await office.buy(2)
    await office.work()
    await office.cancel()
    while office.states() != [State.SHREDDING]:
        await office.work()
        office.clock.pass_seconds(1)
    office.vault.untold = [found(office.purchase())]
    await office.work()
    assert office.states() == [State.REVOKING]
    await office.settle()
    assert office.states() == [State.CANCELED]
    assert office.vault.shredded == set(key_ids(office.purchase())[:1])
    assert office.canceled() == [("item-1", 2, "CANCEL_ASKED")]


async def test_a_key_that_arrives_while_a_person_is_asked_is_for_nobody(office: Office) -> None:
    await office.buy(2)
    await office.work()
    (late,) = await office.claim()
    await office.cancel()
    await office.place(state=State.NEEDS_ATTENTION, reason=Reason.GIVE_UP_TOO_OLD)
    await office.progress.act(late)
    assert len(office.sealed()) == 2
    assert not [key for key in office.sealed() if key.is_openable]
    await office.retry()
    await office.settle()
    assert office.states() == [State.CANCELED]
    assert office.vault.shredded == set(key_ids(office.purchase()))


async def test_a_key_that_arrived_since_vault_was_asked_is_asked_about_as_well(office: Office) -> None:
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [collected(office.purchase(), 1)]
    await office.work()
    office.clock.pass_seconds(60)
    (collecting,) = await office.claim()
    await office.refund()
    office.vault = SlowVault(lambda: office.progress.act(collecting))
    await office.worker().act((await office.claim())[0])
    first, second = key_ids(office.purchase())
    assert office.vault.revoked == {first}
    assert office.states() == [State.REVOKING]
    assert [key.is_openable for key in office.sealed()] == [False, False]
    office.vault.meanwhile = nothing
    office.progress = office.worker()
    await office.settle()
    assert office.vault.shredded == {first, second}
    assert office.states() == [State.REFUNDED]


async def test_a_return_that_the_supplier_refuses_keeps_the_keys_revoked_for_a_human(office: Office) -> None:
    await ready(office)
    await office.refund(a_refund())
    office.supplier.returning = [NoAnswer(), ReturnUnderWay(), ReturnRefused("older than 24 hours")]
    await office.settle()
    purchase = office.purchase()
    assert (purchase.state, purchase.reason, purchase.refusal) == (
        State.NEEDS_ATTENTION,
        Reason.RETURN_REFUSED,
        "older than 24 hours",
    )
    assert not office.vault.shredded
    await office.cancel()
    assert office.states() == [State.REFUNDED]
    assert not office.requests()


async def test_a_key_that_cannot_be_destroyed_now_is_destroyed_later(office: Office) -> None:
    await ready(office)
    await office.refund()
    while office.states() != [State.SHREDDING]:
        await office.work()
        office.clock.pass_seconds(1)
    office.vault.is_away = True
    await office.work()
    assert office.states() == [State.SHREDDING]
    office.vault.is_away = False
    await office.settle()
    assert office.states() == [State.REFUNDED]


@pytest.mark.parametrize("step", ["before commit", "after commit"])
async def test_whoever_dies_at_a_commit_is_followed_by_another(office: Office, step: str) -> None:
    """Every step of taking back, with a crash before or after each commit: the next worker comes to the same end."""

    async def die(at: str) -> None:
        if at == step:
            deaths.append(at)
            raise ConnectionError

    await ready(office)
    await office.refund()
    deaths: list[str] = []
    for number in range(60):
        office.orders.step = die if number % 2 == 0 else _live
        with suppress(ConnectionError):
            await office.work()
        office.clock.pass_seconds(60)
    assert deaths
    assert office.states() == [State.REFUNDED]
    assert office.vault.shredded == set(key_ids(office.purchase()))
    assert office.canceled() == [("item-1", 2, "REFUND_TAKEN")]


async def _live(_at: str) -> None:
    """Nothing happens."""


async def test_what_is_replaced_is_not_taken_back_twice(office: Office) -> None:
    await ready(office)
    first, _ = key_ids(office.purchase())
    row = office.orders.rows.keys[first]
    office.orders.rows.keys[first] = replace(row, key=replace(row.key, replace_time=office.clock.now()))
    await office.refund()
    await office.settle()
    assert office.purchase().canceled_quantity == 1
