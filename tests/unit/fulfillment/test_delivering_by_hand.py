"""Keys that a person delivers or has replaced, and mails that are sent again."""

from datetime import timedelta

import pytest
from chassis.errors import ServiceUnavailable
from fulfillment.domain.model import Action, ExternalId, KeyId, OrderId, State
from fulfillment.domain.policy import actions
from fulfillment.errors import (
    KeyNotFound,
    KeyNotNeeded,
    KeyReplaced,
    MailLimit,
    MailNotDue,
    OrderNotFound,
    PurchaseNotFound,
    PurchaseNotSettled,
)
from fulfillment.operating import MOST_MAILS, Delivery
from fulfillment.ports.supplier import InDoubt, NoAnswer

from tests.unit.fulfillment.desk import a_delivery, deliver, replace_key, resend
from tests.unit.fulfillment.office import CAROL, ORDER_ID, Office
from tests.unit.fulfillment.test_operating import held, in_doubt_too_long, refused


async def test_a_key_delivered_by_hand_is_never_also_bought() -> None:
    office = Office()
    await in_doubt_too_long(office)
    external_id = office.purchase().external_id
    await deliver(office, "r-1")
    assert external_id in office.supplier.withdrawn
    assert Action.RETRY not in actions(office.purchase(), office.sealed())
    assert office.states() == [State.NEEDS_ATTENTION]
    await deliver(office, "r-2")
    assert office.states() == [State.READY]
    await office.settle()
    assert not office.supplier.sold
    assert len(office.audited("key.delivered_manually")) == 2


async def test_a_purchase_that_was_made_after_all_takes_no_key_from_a_person() -> None:
    office = Office()
    await in_doubt_too_long(office)
    office.supplier.sell(office.purchase())
    with pytest.raises(PurchaseNotSettled, match="made after all"):
        await deliver(office)
    assert not office.vault.uploads
    await office.retry()
    await office.settle()
    assert office.states() == [State.READY]


@pytest.mark.parametrize("answer", [InDoubt(timedelta(seconds=42)), InDoubt(None)])
async def test_while_nobody_knows_whether_it_was_bought_no_key_is_taken(answer: InDoubt) -> None:
    office = Office()
    await in_doubt_too_long(office)
    office.supplier.withdrawing = [answer]
    with pytest.raises(PurchaseNotSettled) as raised:
        await deliver(office)
    assert raised.value.retry_after == answer.ask_after
    office.supplier.withdrawing = [NoAnswer()]
    with pytest.raises(ServiceUnavailable):
        await deliver(office)
    assert not office.vault.uploads


async def test_a_key_that_is_not_needed_any_more_is_destroyed() -> None:
    office = Office()
    await refused(office)
    key = await office.operating.seal(a_delivery(office))
    await office.retry()
    with pytest.raises(KeyNotNeeded):
        async with office.orders.transaction() as transaction:
            await office.operating.deliver(transaction, ORDER_ID, key, CAROL)
    await office.operating.destroy(ORDER_ID, key.key_id)
    assert office.vault.shredded == {key.key_id}
    assert not office.sealed()


async def test_a_delivery_twice_is_one_key() -> None:
    office = Office()
    await refused(office)
    await deliver(office)
    await deliver(office)
    assert len(office.sealed()) == 1
    assert len(office.audited("key.delivered_manually")) == 1


async def test_an_uploaded_key_that_was_sold_before_is_kept_and_completes_nothing() -> None:
    office = Office()
    await refused(office)
    office.vault.held = {"used.jwe"}
    for number in range(2):
        await deliver(office, f"r-{number}", "used.jwe")
    assert office.states() == [State.NEEDS_ATTENTION]
    assert not office.orders.rows.mails


async def test_what_was_delivered_by_hand_is_taken_back_with_a_refund() -> None:
    office = Office()
    await refused(office)
    await deliver(office, "r-1")
    await deliver(office, "r-2")
    await office.refund()
    await office.settle()
    assert office.states() == [State.REFUNDED]
    assert len(office.vault.shredded) == 2
    assert not office.supplier.given_back


@pytest.mark.parametrize("is_opened", [False, True])
async def test_a_key_is_replaced_once(*, is_opened: bool) -> None:
    office = Office()
    await office.buy(1)
    await office.settle()
    (key,) = office.sealed()
    if is_opened:
        await office.open(key.key_id)
    await replace_key(office, key.key_id)
    assert (key.key_id in office.vault.revoked) is not is_opened
    with pytest.raises(KeyReplaced):
        await replace_key(office, key.key_id)
    await office.settle()
    first, second = office.orders.purchases()
    assert (first.state, second.state, second.replaced_key_id) == (State.DELIVERED, State.READY, key.key_id)
    assert second.external_id != first.external_id
    assert (await office.found()).state is State.READY
    (fact,) = office.audited("key.replacement_asked")
    assert (fact.key_id, fact.details["opened"]) == (key.key_id, str(is_opened).lower())


async def test_a_key_is_not_replaced_before_vault_has_said_whether_it_was_opened() -> None:
    office = Office()
    await office.buy(1)
    await office.settle()
    office.vault.is_away = True
    with pytest.raises(ServiceUnavailable):
        await replace_key(office, office.sealed()[0].key_id)
    assert len(office.orders.purchases()) == 1


async def test_a_key_whose_money_goes_back_is_not_replaced() -> None:
    office = Office()
    await office.buy(1)
    await office.settle()
    (key,) = office.sealed()
    answer = await office.operating.revoke_for_replacement(ORDER_ID, key.key_id)
    await office.refund()
    with pytest.raises(KeyReplaced):
        async with office.orders.transaction() as transaction:
            await office.operating.replace_key(transaction, ORDER_ID, key.key_id, answer, CAROL)
    with pytest.raises(KeyReplaced):
        await replace_key(office, key.key_id)


async def test_what_is_canceled_beside_a_replaced_key_is_counted_once() -> None:
    office = Office()
    await held(office)
    _, kept = office.sealed()
    await office.place(quantity=3)
    await replace_key(office, kept.key_id)
    await office.settle()
    await office.cancel()
    first, second = office.orders.purchases()
    assert (first.state, first.canceled_quantity) == (State.PARTLY_CANCELED, 1)
    assert second.state is State.READY


async def test_the_mail_is_sent_again_so_often_and_no_more() -> None:
    office = Office()
    await office.order()
    with pytest.raises(MailNotDue):
        await resend(office)
    await office.pay()
    await office.settle()
    for _ in range(MOST_MAILS):
        await resend(office)
        office.clock.pass_seconds(60)
    with pytest.raises(MailLimit) as raised:
        await resend(office)
    assert raised.value.retry_after == timedelta(days=1) - timedelta(minutes=MOST_MAILS)
    office.clock.pass_seconds(timedelta(days=1).total_seconds())
    await resend(office)
    assert len(office.audited("mail.resend_asked")) == MOST_MAILS + 1


async def test_what_is_not_there_is_named() -> None:
    office = Office()
    await refused(office)
    with pytest.raises(KeyNotFound):
        await replace_key(office, KeyId("key-9"))
    with pytest.raises(PurchaseNotFound):
        await office.operating.seal(Delivery("r-1", ORDER_ID, ExternalId("kf1-b"), "text/plain", "a.jwe"))
    with pytest.raises(OrderNotFound):
        await office.operating.seal(Delivery("r-1", OrderId("order-9"), ExternalId("kf1-b"), "text/plain", "a.jwe"))
    assert "a.jwe" not in repr(a_delivery(office))
