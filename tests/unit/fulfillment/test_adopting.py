"""Keys that vault alone knows of are taken in: for the customer where one is missing, and for nobody where not."""

import pytest
from fulfillment.adopting import Adopter
from fulfillment.domain.model import KeyId, OrderId, Reason, State
from fulfillment.ports.supplier import NoAnswer
from keyferry.events.v1.fulfillment_events_pb2 import FulfillmentKeyReady

from tests.unit.fulfillment.fakes import found, key_ids
from tests.unit.fulfillment.office import ORDER_ID, Office


@pytest.fixture
async def office() -> Office:
    """Sell two keys that were collected, and nobody was told."""
    office = Office()
    await office.buy(2)
    await office.work()
    office.supplier.collecting = [NoAnswer()]
    await office.work()
    office.vault.untold = [found(office.purchase()), found(office.purchase(), 1)]
    return office


async def adopt(office: Office, order_id: OrderId = ORDER_ID) -> set[KeyId] | None:
    adopted = await Adopter(office.bench, office.vault).adopt(order_id)
    return None if adopted is None else set(adopted)


async def test_what_a_customer_waits_for_can_be_opened_and_the_purchase_goes_on(office: Office) -> None:
    assert await adopt(office) == set(key_ids(office.purchase()))
    assert len(office.orders.told(FulfillmentKeyReady)) == 2
    await office.work()
    assert (office.states(), office.vault.revoked) == ([State.READY], set())
    assert await adopt(office) == set()


async def test_what_a_person_is_asked_about_can_be_opened_and_stays_theirs(office: Office) -> None:
    await office.place(state=State.NEEDS_ATTENTION, reason=Reason.KEYS_TOO_LATE)
    await adopt(office)
    assert [key.is_openable for key in office.sealed()] == [True, True]
    assert office.reasons() == [Reason.KEYS_TOO_LATE]


async def test_what_is_not_sealed_yet_is_not_shown_to_its_customer(office: Office) -> None:
    office.vault.untold = [found(office.purchase(), sealed=False)]
    assert await adopt(office) == set()
    assert not office.sealed()


async def test_what_nobody_wants_any_more_is_revoked_at_vault(office: Office) -> None:
    untold, office.vault.untold = office.vault.untold, []
    await office.refund()
    await office.settle()
    office.vault.untold = untold
    assert await adopt(office) == set(key_ids(office.purchase()))
    assert office.vault.revoked == set(key_ids(office.purchase()))
    assert (office.states(), office.orders.told(FulfillmentKeyReady)) == ([State.REFUNDED], [])


async def test_what_only_our_rows_call_revoked_is_revoked_at_vault(office: Office) -> None:
    untold, office.vault.untold = office.vault.untold, []
    await office.refund()
    await office.settle()
    office.vault.untold, office.vault.is_away = untold, True
    assert await adopt(office) is None
    office.vault.is_away = False
    office.vault.revoking = [await office.vault.revoke_keys(ORDER_ID, [], why="")]
    await adopt(office)
    assert not office.vault.revoked, "the answer was a lie"
    assert await adopt(office) == set(key_ids(office.purchase()))
    assert office.vault.revoked == set(key_ids(office.purchase()))


async def test_what_came_from_nothing_of_the_order_is_left_alone(office: Office) -> None:
    office.vault.untold = [found(office.purchase(), supplier_order_id="")]
    assert await adopt(office) == set()
    office.vault.untold = [found(office.purchase())]
    assert await adopt(office, OrderId("of nobody")) == set()
    assert not office.sealed()


async def test_while_it_goes_back_it_is_taken_back_too(office: Office) -> None:
    untold, office.vault.untold = office.vault.untold, []
    await office.cancel()
    while office.states() != [State.RETURNING]:
        await office.work()
    office.vault.untold = untold
    await adopt(office)
    assert office.states() == [State.REVOKING]
    await office.settle()
    assert (office.states(), office.vault.shredded) == ([State.CANCELED], set(key_ids(office.purchase())))
