"""A customer is forgotten once nothing is owed, in vault first and in audit last, whatever dies in between."""

from dataclasses import replace
from typing import Any, cast

import pytest
from chassis.errors import InvalidRequest, RemoteError, RequestIdReused, ServiceUnavailable
from fulfillment.domain.erasure import is_settled
from fulfillment.domain.model import Amount, Customer, Fulfillment, KeyId, OrderId, Reason, RefundRequest, State
from fulfillment.domain.policy import Policy
from fulfillment.erasing import BATCH, Erasing
from fulfillment.errors import CustomerNotSettled, KeyNotFound, MailNotDue, OrderConflict, OrderNotFound
from fulfillment.giving_up import GivingUp
from fulfillment.keeping_service import KeepingMethods
from fulfillment.moving import Mover
from fulfillment.ports.keeping import Delivery, DeliveryAct, DeliveryLog
from fulfillment.ports.supplier import Refused
from keyferry.events.v1.audit_events_pb2 import AuditCustomerErased
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.desk import resend
from tests.unit.fulfillment.examples import ALICE, NOON, a_payment, an_order
from tests.unit.fulfillment.fakes import found
from tests.unit.fulfillment.memory_erasures import FakeKeeper, MemoryErasures
from tests.unit.fulfillment.office import ORDER_ID, Office, a_refund

NO_CONTEXT = cast("Any", None)
CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol", email="carol@example.com")
BOB = Customer("bob", "bob@example.com")


class Keeping(Office, KeepingMethods):
    """The office, and what it keeps of customers and keys."""

    def __init__(self) -> None:
        super().__init__()
        self._orders = self.orders
        self._keeper = self.keeper = FakeKeeper()
        self.erasures = MemoryErasures(self.orders)
        giving_up = GivingUp(Mover(Policy()))
        self._erasing = Erasing(self.erasures, self.keeper, giving_up, self.openings, clock=self.clock)

    async def erase(self, **changes: Any) -> pb.EraseCustomerResponse:
        fields = {
            "request_id": "1f0f2f6e-3c1b-4a6e-9a51-7d1e2c3b4a01",
            "customer_id": "alice",
            "actor": CAROL,
            "reason": "asked for it",
            **changes,
        }
        return await self.EraseCustomer(pb.EraseCustomerRequest(**fields), NO_CONTEXT)

    async def deliver_all(self) -> None:
        await self.buy(2)
        await self.settle()
        for key in self.sealed():
            await self.open(key.key_id)

    async def customers(self) -> dict[str, str]:
        return {str(order_id): row.order.customer.customer_id for order_id, row in self.orders.rows.orders.items()}


@pytest.fixture
def office() -> Keeping:
    return Keeping()


async def test_a_customer_is_removed_from_what_is_kept_and_audit_hears_of_it(office: Keeping) -> None:
    await office.deliver_all()
    await office.order(an_order("order-2", customer=BOB))
    answer = await office.erase()
    assert (answer.order_count, answer.kept_order_count) == (1, 0)
    assert (answer.shredded_key_count, answer.kept_key_count) == (2, 1)
    kept = await office.found()
    assert kept.order.customer == Customer(answer.pseudonym, "")
    assert (kept.state, kept.paid) == (State.DELIVERED, Amount("EUR", 1000))
    assert await office.customers() == {"order-1": answer.pseudonym, "order-2": "bob"}
    assert office.erasures.struck == [("alice", answer.pseudonym)]
    (fact,) = office.audited("customer.orders_erased")
    assert (fact.actor.id, fact.details["reason"], fact.details["order_count"]) == ("carol", "asked for it", "1")
    (told,) = office.orders.told(AuditCustomerErased)
    assert (told.customer_id, told.actor) == ("alice", actor_pb2.Actor(type=CAROL.type, id="carol"))
    assert "alice" not in str(fact)


async def test_asked_again_it_is_answered_the_same_and_does_nothing(office: Keeping) -> None:
    await office.deliver_all()
    answer = await office.erase()
    before = office.orders.rows
    assert await office.erase() == answer
    assert office.orders.rows == before
    with pytest.raises(RequestIdReused):
        await office.erase(forfeit_unopened=True)


@pytest.mark.parametrize("how", ["awaited", "stuck", "part_paid", "asked_back"])
async def test_while_something_is_owed_nothing_is_changed(office: Keeping, how: str) -> None:
    if how == "part_paid":
        await office.order()
        await office.pay(a_payment(400))
    else:
        await office.buy(1)
    if how == "stuck":
        office.supplier.placing = [Refused("ConstraintViolation")]
        await office.work()
        assert (await office.found()).state is State.NEEDS_ATTENTION
    if how == "asked_back":
        await office.cancel()
        await office.settle()
    before = office.orders.rows
    with pytest.raises(CustomerNotSettled) as raised:
        await office.erase()
    assert raised.value.metadata == {"order_ids": "order-1"}
    assert office.orders.rows == before
    assert not office.keeper.erasures


async def test_what_was_asked_back_and_paid_back_is_over(office: Keeping) -> None:
    await office.buy(1)
    await office.cancel()
    await office.settle()
    await office.refund(replace(a_refund(), request_ids=[office.requests()[0].request_id]))
    await office.settle()
    assert (await office.erase()).order_count == 1


async def test_an_order_that_nobody_paid_is_canceled_so_that_a_late_payment_goes_back(office: Keeping) -> None:
    await office.order()
    await office.erase()
    assert (await office.found()).state is State.CANCELED
    await office.pay()
    assert not office.orders.purchases()
    assert office.asked_back() == 1000


async def test_what_vault_says_of_unopened_keys_passes_through_and_they_may_be_forfeited(office: Keeping) -> None:
    await office.buy(1)
    await office.settle()
    office.keeper.unopened = True
    with pytest.raises(RemoteError) as raised:
        await office.erase()
    assert (raised.value.reason, raised.value.metadata["unopened_count"]) == ("KEYS_UNOPENED", "1")
    assert await office.customers() == {"order-1": "alice"}
    office.keeper.keys = [found(office.purchase(), taken_back=True)]
    assert (await office.erase(forfeit_unopened=True)).order_count == 1
    assert [key.is_openable for key in office.sealed()] == [False]


async def test_a_key_that_came_after_vault_had_forgotten_keeps_its_order(office: Keeping) -> None:
    await office.buy(1)
    await office.settle()
    office.keeper.keys = [found(office.purchase())]
    answer = await office.erase()
    assert (answer.order_count, answer.kept_order_count) == (0, 1)
    assert await office.customers() == {"order-1": "alice"}
    assert [key.is_openable for key in office.sealed()] == [True]


async def test_an_opening_that_was_not_told_yet_is_vaults_word(office: Keeping) -> None:
    await office.buy(1)
    await office.settle()
    office.keeper.keys_away = True
    with pytest.raises(ServiceUnavailable):
        await office.erase()
    office.keeper.keys_away = False
    office.keeper.keys = [found(office.purchase(), taken_back=True, open_time=NOON)]
    assert (await office.erase()).order_count == 1
    assert [(key.open_time is None, key.revoke_time) for key in office.sealed()] == [(False, None)]
    assert (await office.found()).state is State.DELIVERED


async def test_while_vault_is_down_nothing_is_changed_and_the_repeat_goes_on(office: Keeping) -> None:
    await office.deliver_all()
    office.keeper.is_away = True
    with pytest.raises(ServiceUnavailable):
        await office.erase()
    assert await office.customers() == {"order-1": "alice"}
    office.keeper.is_away = False
    assert (await office.erase()).order_count == 1


async def test_whatever_dies_the_repeat_finishes_under_the_same_pseudonym(office: Keeping) -> None:
    for number in range(BATCH + 1):
        await office.order(an_order(f"order-{number:03}"))
    died, alive = 0, True
    while alive:
        alive, step = False, 0

        async def dies(_step: str, at: int = died) -> None:
            nonlocal alive, step
            step += 1
            if step == at + 1:
                alive = True
                raise ServiceUnavailable("it died")

        office.orders.step = dies
        try:
            answer = await office.erase()
        except ServiceUnavailable:
            died += 1
    assert died > 4  # it died around every commit there is
    assert set((await office.customers()).values()) == {answer.pseudonym}
    assert len(office.keeper.erasures) == 1
    assert len(office.orders.told(AuditCustomerErased)) == 1


async def test_an_order_that_comes_meanwhile_stays_the_customers(office: Keeping) -> None:
    await office.order(an_order("order-0"))
    erase = office.keeper.erase_customer

    async def comes(erasure: Any) -> Any:
        await office.buy(1)
        return await erase(erasure)

    office.keeper.erase_customer = comes  # type: ignore[method-assign] # something happens before it answers
    answer = await office.erase()
    assert (answer.order_count, answer.kept_order_count) == (1, 1)
    assert await office.customers() == {"order-0": answer.pseudonym, "order-1": "alice"}


async def test_the_shop_may_repeat_an_order_whose_customer_was_forgotten(office: Keeping) -> None:
    await office.deliver_all()
    with pytest.raises(OrderConflict):
        await office.order(digest=b"other content")
    await office.erase()
    await office.order()
    assert (await office.found()).order.customer.email == ""
    with pytest.raises(MailNotDue):
        await resend(office)


async def test_every_fault_of_a_request_is_told(office: Keeping) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await office.erase(request_id="1", customer_id="", reason="", actor=actor_pb2.Actor())
    fields = {violation.field for violation in raised.value.field_violations}
    assert fields == {"request_id", "customer_id", "actor.type", "actor.id", "reason"}


def a_fulfillment(state: State, paid: int, refunded: int) -> Fulfillment:
    amounts = [Amount("EUR", cents) if cents else None for cents in (paid, refunded)]
    order = an_order(customer=ALICE)
    return Fulfillment(order, state, Reason.NONE, amounts[0], (), 1, NOON, NOON, None, None, amounts[1])


@pytest.mark.parametrize(
    ("state", "paid", "refunded", "settled"),
    [
        (State.AWAITING_PAYMENT, 0, 0, True),
        (State.AWAITING_PAYMENT, 400, 0, False),
        (State.NEEDS_ATTENTION, 1200, 0, False),
        (State.NEEDS_ATTENTION, 1200, 1200, True),
        (State.REFUNDED, 1000, 1000, True),
        (State.CANCELED, 1000, 0, False),
    ],
)
def test_an_order_of_which_nothing_was_bought_is_settled_by_its_money(
    state: State, paid: int, refunded: int, *, settled: bool
) -> None:
    request = RefundRequest("request-1", ORDER_ID, None, None, 1, Amount("EUR", 1000), Reason.CANCEL_ASKED)
    order = a_fulfillment(state, paid, refunded)
    assert is_settled(order, [request]) is settled
    assert is_settled(order, [replace(request, is_answered=True)]) is settled


async def test_a_delivery_log_is_of_a_key_of_this_order(office: Keeping) -> None:
    await office.deliver_all()
    key_id = office.sealed()[0].key_id
    opened = Delivery(DeliveryAct.REVEALED, NOON, "", "request-1", "192.0.0.0/16", "Firefox on Windows", "")
    office.keeper.logs = {key_id: DeliveryLog(ORDER_ID, [opened], 1, 2)}
    ask = office.GetDeliveryLog
    log = await ask(pb.GetDeliveryLogRequest(order_id="order-1", key_id=key_id), NO_CONTEXT)
    assert (log.link_count, log.reveal_count) == (1, 2)
    (delivery,) = log.deliveries
    assert (delivery.act, delivery.device) == (pb.DELIVERY_ACT_REVEALED, "Firefox on Windows")
    with pytest.raises(OrderNotFound):
        await ask(pb.GetDeliveryLogRequest(order_id="order-9", key_id=key_id), NO_CONTEXT)
    with pytest.raises(KeyNotFound):
        await ask(pb.GetDeliveryLogRequest(order_id="order-1", key_id="key-of-another"), NO_CONTEXT)
    office.keeper.logs = {KeyId(key_id): DeliveryLog(OrderId("order-9"), [], 0, 0)}
    with pytest.raises(KeyNotFound):
        await ask(pb.GetDeliveryLogRequest(order_id="order-1", key_id=key_id), NO_CONTEXT)
    with pytest.raises(InvalidRequest):
        await ask(pb.GetDeliveryLogRequest(order_id="", key_id=""), NO_CONTEXT)
