"""What is kept of messages names a forgotten customer no more, and nobody else is touched."""

from fulfillment.adapters.striking import struck
from google.protobuf.message import Message
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as admin_pb
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.type.v1 import actor_pb2

ALICE = fulfillment_pb2.Customer(customer_id="alice", email="alice@example.com", locale="de", country_code="AT")
BOB = fulfillment_pb2.Customer(customer_id="bob", email="alice@example.com")
ACTOR = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="alice", email="alice@example.com", ip_address="::1")


def after(message: Message) -> Message:
    data = struck(message.SerializeToString(), message.DESCRIPTOR.full_name, "alice", "erased-1")
    assert data is not None
    return type(message).FromString(data)


def an_answer(*customers: fulfillment_pb2.Customer) -> pb.ListFulfillmentsResponse:
    fulfillments = [fulfillment_pb2.Fulfillment(order_id="order-1", customer=customer) for customer in customers]
    return pb.ListFulfillmentsResponse(fulfillments=fulfillments)


def test_a_customer_is_replaced_wherever_they_stand_in_a_message() -> None:
    erased = fulfillment_pb2.Customer(customer_id="erased-1")
    assert after(an_answer(ALICE, BOB, ALICE)) == an_answer(erased, BOB, erased)


def test_a_fact_stays_with_an_actor_who_is_nobody() -> None:
    fact = AuditRecorded(actor=ACTOR, action="order.cancel_asked", order_id="order-1", details={"items": "alice"})
    erased = actor_pb2.Actor(type=ACTOR.type, id="erased-1")
    told = AuditRecorded(actor=erased, action=fact.action, order_id="order-1", details={"items": "alice"})
    assert after(fact) == told


def test_an_admin_of_the_same_id_is_somebody_else() -> None:
    fact = AuditRecorded(actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="alice"), action="payment.closed")
    assert after(fact) == fact


def test_a_payment_that_could_not_be_taken_stays_without_its_order() -> None:
    payment = fulfillment_pb2.Payment(payment_id="payment-1", order_id="order-1", provider="stripe")
    order = fulfillment_pb2.Order(order_id="order-1", customer=ALICE)
    assert after(PaymentConfirmed(payment=payment, order=order)) == PaymentConfirmed(payment=payment)


def test_what_does_not_name_them_is_the_same_and_what_is_unreadable_says_so() -> None:
    told = admin_pb.ResendDeliveryEmailResponse().SerializeToString()
    assert struck(told, "keyferry.fulfillment.v1.ResendDeliveryEmailResponse", "alice", "erased-1") == told
    assert struck(b"\xff", "keyferry.events.v1.AuditRecorded", "alice", "erased-1") is None
    assert struck(b"alice", "no.such.Type", "alice", "erased-1") is None
