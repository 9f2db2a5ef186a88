"""What support staff is answered: each request once, whatever comes between, and never an answer of another request."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from chassis.errors import InvalidRequest, RequestIdReused
from fulfillment.admin_service import SERVICE_NAME, FulfillmentAdminServicer
from fulfillment.domain.model import OrderId, State
from fulfillment.errors import KeyNotNeeded, PaymentNotFound
from fulfillment.matching import Matching
from fulfillment.payments import PaymentDesk
from fulfillment.ports.supplier import Refused
from fulfillment.retrying import Retrying
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.examples import a_payment
from tests.unit.fulfillment.memory_payments import MemoryPayments
from tests.unit.fulfillment.office import Office, a_refund

if TYPE_CHECKING:
    import grpc

NO_CONTEXT = cast("grpc.aio.ServicerContext[Any, Any]", None)
CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")


def common(number: int = 1) -> dict[str, Any]:
    request_id = f"1f0f2f6e-3c1b-4a6e-9a51-7d1e2c3b4a{number:02}"
    return {"request_id": request_id, "order_id": "order-1", "actor": CAROL, "reason": "the customer asked"}


class Desk(Office):
    def __init__(self) -> None:
        super().__init__()
        # What else it serves has tests of its own.
        servicer: Any = FulfillmentAdminServicer
        self.admin: FulfillmentAdminServicer = servicer(
            self.orders,
            operating=self.operating,
            retrying=Retrying(self.operating, self.clock),
            payments=PaymentDesk(MemoryPayments(self.orders)),
            matching=Matching(self.intake, self.clock),
            reports=None,
            clock=self.clock,
            dead_letters=None,
            within=None,
            vault=self.vault,
            keeper=None,
            erasing=None,
        )

    async def deliver(self, number: int = 1) -> pb.DeliverKeyManuallyResponse:
        request = pb.DeliverKeyManuallyRequest(
            external_id=self.purchase().external_id, content_type="text/plain", key_jwe="a.jwe", **common(number)
        )
        return await self.admin.DeliverKeyManually(request, NO_CONTEXT)

    async def replace(self, number: int = 1) -> pb.ReplaceKeyResponse:
        request = pb.ReplaceKeyRequest(key_id=self.sealed()[0].key_id, **common(number))
        return await self.admin.ReplaceKey(request, NO_CONTEXT)

    async def refuse(self) -> None:
        self.supplier.placing = [Refused("ConstraintViolation")]
        await self.buy(1)
        await self.work()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_it_is_the_service_of_the_contract() -> None:
    assert SERVICE_NAME == "keyferry.fulfillment.v1.FulfillmentAdminService"


async def test_a_retry_is_done_once_however_often_it_is_asked(desk: Desk) -> None:
    await desk.refuse()
    request = pb.RetryFulfillmentRequest(**common())
    first = await desk.admin.RetryFulfillment(request, NO_CONTEXT)
    assert first.fulfillment.state == fulfillment_pb2.STATE_PENDING
    before = desk.orders.rows
    assert await desk.admin.RetryFulfillment(request, NO_CONTEXT) == first
    assert desk.orders.rows == before
    with pytest.raises(RequestIdReused):
        await desk.admin.RetryFulfillment(pb.RetryFulfillmentRequest(item_id="item-1", **common()), NO_CONTEXT)


async def test_a_delivery_is_answered_with_its_key_and_again_with_the_same(desk: Desk) -> None:
    await desk.refuse()
    first = await desk.deliver()
    assert [key.key_id for key in first.fulfillment.lines[0].keys] == [first.key_id]
    assert first.fulfillment.state == fulfillment_pb2.STATE_READY
    # By then the purchase needs no key any more; what was answered is answered.
    assert await desk.deliver() == first
    assert len(desk.vault.uploads) == 1


async def test_a_key_that_turns_out_not_to_be_needed_is_destroyed_and_said_so(desk: Desk) -> None:
    await desk.refuse()
    seal = desk.vault.seal_upload

    async def retried_meanwhile(upload: Any) -> Any:
        sealed = await seal(upload)
        await desk.retry()
        return sealed

    desk.vault.seal_upload = retried_meanwhile  # type: ignore[method-assign] # something happens before it answers
    with pytest.raises(KeyNotNeeded):
        await desk.deliver()
    assert not desk.sealed()
    assert len(desk.vault.shredded) == 1


async def test_a_replacement_is_bought_once_however_often_it_is_asked(desk: Desk) -> None:
    await desk.buy(1)
    await desk.settle()
    first = await desk.replace()
    assert await desk.replace() == first
    assert len(desk.orders.purchases()) == 2


async def test_a_replacement_whose_answer_was_lost_in_between_is_finished_by_its_repeat(desk: Desk) -> None:
    await desk.buy(1)
    await desk.settle()

    async def die(step: str) -> None:
        if step == "before commit" and desk.vault.revoked:
            raise ConnectionError

    desk.orders.step = die
    with pytest.raises(ConnectionError):
        await desk.replace()
    assert len(desk.orders.purchases()) == 1

    async def live(_step: str) -> None:
        return

    desk.orders.step = live
    await desk.replace()
    assert [each.state for each in desk.orders.purchases()] == [State.DELIVERED, State.PENDING]


async def test_the_mail_is_sent_again(desk: Desk) -> None:
    await desk.buy(1)
    await desk.settle()
    for _ in range(2):
        await desk.admin.ResendDeliveryEmail(pb.ResendDeliveryEmailRequest(**common()), NO_CONTEXT)
        desk.clock.time += timedelta(seconds=1)
    assert len(desk.audited("mail.resend_asked")) == 1


async def test_vaults_upload_key_is_passed_on(desk: Desk) -> None:
    response = await desk.admin.GetUploadKey(pb.GetUploadKeyRequest(), NO_CONTEXT)
    assert response.upload_jwk == await desk.vault.upload_jwk()


async def test_payments_are_listed_and_read(desk: Desk) -> None:
    await desk.buy(1)
    await desk.refund(a_refund(5))
    listed = await desk.admin.ListPayments(pb.ListPaymentsRequest(order_id="order-1"), NO_CONTEXT)
    found = await desk.admin.GetPayment(pb.GetPaymentRequest(provider="stripe", payment_id="payment-1"), NO_CONTEXT)
    assert list(listed.payments) == [found.payment]
    assert found.payment.refunds[0].refund_id == "refund-1"
    with pytest.raises(PaymentNotFound):
        await desk.admin.GetPayment(pb.GetPaymentRequest(provider="stripe", payment_id="payment-9"), NO_CONTEXT)
    with pytest.raises(InvalidRequest, match="order_id"):
        await desk.admin.ListPayments(pb.ListPaymentsRequest(order_id="a/b"), NO_CONTEXT)
    with pytest.raises(InvalidRequest, match="provider"):
        await desk.admin.GetPayment(pb.GetPaymentRequest(), NO_CONTEXT)


async def test_a_page_of_retries_is_done_once_however_often_it_is_asked(desk: Desk) -> None:
    await desk.refuse()
    asked = {name: value for name, value in common().items() if name != "order_id"}
    request = pb.RetryFulfillmentsRequest(attention_reason="PURCHASE_REFUSED", **asked)
    first = await desk.admin.RetryFulfillments(request, NO_CONTEXT)
    assert (first.retried_count, list(first.refused), first.next_page_token) == (1, [], "")
    before = desk.orders.rows
    assert await desk.admin.RetryFulfillments(request, NO_CONTEXT) == first
    assert desk.orders.rows == before
    with pytest.raises(RequestIdReused):
        await desk.admin.RetryFulfillments(pb.RetryFulfillmentsRequest(**asked), NO_CONTEXT)


async def test_a_payment_is_assigned_and_closed_once_however_often_it_is_asked(desk: Desk) -> None:
    await desk.order()
    await desk.pay(a_payment(order_id=OrderId("order-9")))
    await desk.pay(a_payment(payment_id="payment-2", order_id=OrderId("order-9")))
    asked = {**common(1), "provider": "stripe", "payment_id": "payment-1", "customer_id": "alice"}
    request = pb.AssignPaymentRequest(**asked)
    assigned = await desk.admin.AssignPayment(request, NO_CONTEXT)
    assert assigned.fulfillment.state == fulfillment_pb2.STATE_PENDING
    assert (assigned.payment.payment.order_id, assigned.payment.told_order_id) == ("order-1", "order-9")
    asked = {**common(2), "provider": "stripe", "payment_id": "payment-2", "closure": 1}
    closing = pb.ClosePaymentRequest(**{name: value for name, value in asked.items() if name != "order_id"})
    closed = await desk.admin.ClosePayment(closing, NO_CONTEXT)
    assert closed.payment.closure == pb.PAYMENT_CLOSURE_REFUNDED_OUTSIDE
    assert (closed.payment.close_note, closed.payment.HasField("close_time")) == ("the customer asked", True)
    before = desk.orders.rows
    assert await desk.admin.AssignPayment(request, NO_CONTEXT) == assigned
    assert await desk.admin.ClosePayment(closing, NO_CONTEXT) == closed
    assert desk.orders.rows == before


async def test_every_fault_of_these_requests_is_named_at_once(desk: Desk) -> None:
    for call, request, fields in (
        (
            desk.admin.RetryFulfillments,
            pb.RetryFulfillmentsRequest(attention_reason="PAYMENT_MISMATCH"),
            {"request_id", "attention_reason", "actor.type", "actor.id", "reason"},
        ),
        (
            desk.admin.AssignPayment,
            pb.AssignPaymentRequest(),
            {"request_id", "order_id", "customer_id", "provider", "payment_id", "actor.type", "actor.id", "reason"},
        ),
        (
            desk.admin.ClosePayment,
            pb.ClosePaymentRequest(),
            {"request_id", "closure", "provider", "payment_id", "actor.type", "actor.id", "reason"},
        ),
    ):
        with pytest.raises(InvalidRequest) as raised:
            await call(request, NO_CONTEXT)  # type: ignore[arg-type] # each takes its own request
        assert {fault.field for fault in raised.value.field_violations} == fields
