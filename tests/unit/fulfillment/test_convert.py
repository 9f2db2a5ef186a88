from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from chassis.errors import InvalidRequest
from chassis.validation import Faults
from fulfillment.convert import (
    fulfillment_to_proto,
    order_digest,
    order_from_proto,
    payment_from_proto,
    state_from_proto,
    wish_from_proto,
)
from fulfillment.domain.fold import ORDER_STATES
from fulfillment.domain.model import (
    Amount,
    Customer,
    ExternalId,
    Fulfillment,
    Item,
    ItemId,
    Key,
    KeyId,
    Line,
    Order,
    OrderId,
    Payment,
    Purchase,
    Reason,
    State,
)
from fulfillment.ports.vault import KeyWish, Viewer
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.fulfillment.v1 import fulfillment_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as service_pb
from keyferry.type.v1 import actor_pb2, money_pb2

from tests.unit.fulfillment.examples import ALICE, NOON, an_order

REQUEST_ID = "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11"


def stamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def order_message() -> pb.Order:
    return pb.Order(
        order_id="order-1",
        customer=pb.Customer(customer_id="alice", email="alice@example.com", locale="de-AT", country_code="AT"),
        total=money_pb2.Money(currency_code="USD", minor_units=2599),
        items=[
            pb.Item(
                item_id="item-1",
                product_id="product-1",
                offer_id="offer-1",
                quantity=2,
                max_unit_price=money_pb2.Money(currency_code="EUR", minor_units=999),
                key_type="text",
            )
        ],
    )


def payment_message() -> pb.Payment:
    return pb.Payment(
        payment_id="payment-1",
        order_id="order-1",
        provider="stripe",
        amount=money_pb2.Money(currency_code="USD", minor_units=2599),
        confirm_time=stamp(NOON),
    )


def faults_of(read: Callable[[Faults], object]) -> list[str]:
    faults = Faults()
    read(faults)
    with pytest.raises(InvalidRequest) as raised:
        faults.raise_if_any()
    return [violation.field for violation in raised.value.field_violations]


def test_an_order_is_read() -> None:
    faults = Faults()
    order = order_from_proto(order_message(), faults)
    faults.raise_if_any()
    assert order == Order(
        OrderId("order-1"),
        Customer("alice", "alice@example.com", "de-AT", "AT"),
        Amount("USD", 2599),
        [Item(ItemId("item-1"), "product-1", 2, 999, "offer-1", "text")],
    )


def test_a_payment_is_read() -> None:
    faults = Faults()
    payment = payment_from_proto(payment_message(), faults)
    faults.raise_if_any()
    assert payment == Payment("stripe", "payment-1", OrderId("order-1"), Amount("USD", 2599), NOON)


def test_every_fault_of_an_order_is_told_at_once() -> None:
    message = pb.Order(
        order_id="order 1",
        customer=pb.Customer(email="nobody", locale="d", country_code="de"),
        total=money_pb2.Money(currency_code="XYZ"),
        items=[
            pb.Item(item_id="a", product_id="", quantity=-1, key_type="picture"),
            pb.Item(
                item_id="a",
                product_id="p",
                offer_id="o o",
                quantity=1001,
                max_unit_price=money_pb2.Money(currency_code="USD", minor_units=-5),
            ),
        ],
    )
    assert faults_of(lambda faults: order_from_proto(message, faults)) == [
        "order.items[1].item_id",
        "order.order_id",
        "order.customer.customer_id",
        "order.customer.email",
        "order.customer.locale",
        "order.customer.country_code",
        "order.total.currency_code",
        "order.total.minor_units",
        "order.items[0].product_id",
        "order.items[0].quantity",
        "order.items[0].max_unit_price.currency_code",
        "order.items[0].max_unit_price.minor_units",
        "order.items[0].key_type",
        "order.items[1].offer_id",
        "order.items[1].quantity",
        "order.items[1].max_unit_price.currency_code",
        "order.items[1].max_unit_price.minor_units",
    ]


def test_every_fault_of_a_payment_is_told_at_once() -> None:
    assert faults_of(lambda faults: payment_from_proto(pb.Payment(), faults)) == [
        "payment.payment_id",
        "payment.provider",
        "payment.confirm_time",
        "payment.order_id",
        "payment.amount.currency_code",
        "payment.amount.minor_units",
    ]


OrderChange = Callable[[pb.Order], None]
# fmt: off
ORDER_FAULTS: list[tuple[OrderChange, str]] = [
    (lambda order: order.ClearField("items"),                            "order.items"),
    (lambda order: order.items.extend([order.items[0]] * 50),            "order.items"),
    (lambda order: setattr(order, "order_id", "x" * 65),                 "order.order_id"),
    (lambda order: setattr(order, "order_id", "ö"),                      "order.order_id"),
    (lambda order: setattr(order.customer, "customer_id", "x" * 256),    "order.customer.customer_id"),
    (lambda order: setattr(order.customer, "customer_id", "a\0b"),       "order.customer.customer_id"),
    (lambda order: setattr(order.customer, "email", "a@b\r\nBcc: c@d"),  "order.customer.email"),
    (lambda order: setattr(order.customer, "email", "a\0@b"),            "order.customer.email"),
    (lambda order: setattr(order.customer, "email", "a@b, c@d"),         "order.customer.email"),
    (lambda order: setattr(order.customer, "email", "x" * 65 + "@b.de"), "order.customer.email"),
    (lambda order: setattr(order.customer, "locale", "de" + "-xx" * 12), "order.customer.locale"),
    (lambda order: setattr(order.customer, "locale", "de\n"),            "order.customer.locale"),
    (lambda order: setattr(order.customer, "country_code", "DEU"),       "order.customer.country_code"),
    (lambda order: setattr(order.total, "currency_code", "usd"),         "order.total.currency_code"),
    (lambda order: setattr(order.total, "currency_code", ""),            "order.total.currency_code"),
    (lambda order: setattr(order.total, "minor_units", 0),               "order.total.minor_units"),
    (lambda order: setattr(order.total, "minor_units", 10**12 + 1),      "order.total.minor_units"),
    (lambda order: setattr(order.items[0], "quantity", 0),               "order.items[0].quantity"),
    (lambda order: setattr(order.items[0], "quantity", -1),              "order.items[0].quantity"),
    (lambda order: setattr(order.items[0], "product_id", "x" * 65),      "order.items[0].product_id"),
    (lambda order: setattr(order.items[0], "offer_id", "a/b"),           "order.items[0].offer_id"),
    (lambda order: setattr(order.items[0], "key_type", "TEXT"),          "order.items[0].key_type"),
]
# fmt: on


@pytest.mark.parametrize(("change", "field"), ORDER_FAULTS)
def test_a_faulty_field_of_an_order_is_named(change: OrderChange, field: str) -> None:
    message = order_message()
    change(message)
    assert field in set(faults_of(lambda faults: order_from_proto(message, faults)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("payment_id", "x" * 129), ("payment_id", "a\x1fb"), ("provider", "x" * 65), ("order_id", "a b")],
)
def test_a_faulty_field_of_a_payment_is_named(field: str, value: str) -> None:
    message = payment_message()
    setattr(message, field, value)
    assert faults_of(lambda faults: payment_from_proto(message, faults)) == [f"payment.{field}"]


@pytest.mark.parametrize("moment", [Timestamp(seconds=10**15), Timestamp(seconds=-(10**15)), Timestamp(nanos=-7)])
def test_a_moment_out_of_all_years_is_named(moment: Timestamp) -> None:
    message = payment_message()
    message.confirm_time.CopyFrom(moment)
    assert faults_of(lambda faults: payment_from_proto(message, faults)) == ["payment.confirm_time"]


@pytest.mark.parametrize("quantity", [1, 1000])
def test_the_limits_themselves_are_allowed(quantity: int) -> None:
    message = order_message()
    message.items[0].quantity = quantity
    message.order_id = "x" * 64
    message.customer.locale = message.customer.country_code = message.items[0].offer_id = ""
    faults = Faults()
    order_from_proto(message, faults)
    faults.raise_if_any()


def test_any_other_content_has_another_digest() -> None:
    other = order_message()
    other.items[0].quantity = 3
    assert order_digest(order_message()) == order_digest(order_message())
    assert order_digest(other) != order_digest(order_message())


def wish_message() -> service_pb.RevealKeyRequest:
    return service_pb.RevealKeyRequest(
        request_id=REQUEST_ID.upper(),
        order_id="order-1",
        key_id="key-1",
        actor=actor_pb2.Actor(
            type=actor_pb2.ACTOR_TYPE_CUSTOMER,
            id="alice",
            email="a@b",
            ip_address="192.0.2.7",
            user_agent="Browser",
            country_code="AT",
        ),
        recipient_jwk=b"{}",
    )


def test_a_wish_passes_through_whole() -> None:
    viewer = Viewer("alice", "a@b", "192.0.2.7", "Browser", "AT")
    assert wish_from_proto(wish_message()) == KeyWish(REQUEST_ID, OrderId("order-1"), KeyId("key-1"), viewer, b"{}")


def test_a_wish_shows_nothing_personal_when_it_is_printed() -> None:
    text = repr(wish_from_proto(wish_message()))
    assert "192.0.2.7" not in text
    assert "a@b" not in text


@pytest.mark.parametrize("actor_type", [actor_pb2.ACTOR_TYPE_ADMIN, actor_pb2.ACTOR_TYPE_SERVICE, 0])
def test_only_a_customer_may_wish_for_a_key(actor_type: actor_pb2.ActorType.ValueType) -> None:
    message = wish_message()
    message.actor.type = actor_type
    with pytest.raises(InvalidRequest) as raised:
        wish_from_proto(message)
    assert [violation.field for violation in raised.value.field_violations] == ["actor.type"]


def test_every_fault_of_a_wish_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        wish_from_proto(service_pb.CreateDownloadLinkRequest(recipient_jwk=bytes(1025)))
    assert [violation.field for violation in raised.value.field_violations] == [
        "request_id",
        "order_id",
        "key_id",
        "actor.type",
        "actor.id",
        "recipient_jwk",
    ]


def test_every_state_of_ours_can_be_filtered_and_told() -> None:
    for state in ORDER_STATES:
        assert state_from_proto(pb.State.Value(f"STATE_{state.name}")) is state
    assert state_from_proto(pb.STATE_UNSPECIFIED) is None


@pytest.mark.parametrize(
    "state", [99, *(pb.State.Value(f"STATE_{state.name}") for state in State if state not in ORDER_STATES)]
)
def test_a_state_that_no_order_has_cannot_be_filtered(state: pb.State.ValueType) -> None:
    with pytest.raises(InvalidRequest, match="state"):
        state_from_proto(state)


def a_fulfillment(**changes: object) -> Fulfillment:
    order = an_order("order-1", 2)
    item_id, external_id = order.items[0].item_id, ExternalId("kf1-a")
    purchase = Purchase(
        external_id,
        order.order_id,
        item_id,
        2,
        State.NEEDS_ATTENTION,
        NOON,
        Reason.DUPLICATE_KEY,
        attempt=2,
        offer_id="offer-1",
        unit_limit=999,
        refusal="ProductUnavailable",
        supplier_order_id="PHS1",
        place_time=NOON,
        canceled_quantity=5,
        next_time=NOON,
    )
    keys = [
        Key(KeyId("key-1"), item_id, external_id, "text/plain", held=False, ready_time=NOON, open_time=NOON),
        Key(KeyId("key-2"), item_id, external_id, "text/plain", held=True, ready_time=NOON),
    ]
    state, reason = State.NEEDS_ATTENTION, Reason.DUPLICATE_KEY
    lines = [Line(order.items[0], "Lantern", [purchase], keys, state, reason)]
    fulfillment = Fulfillment(order, state, reason, Amount("EUR", 1000), lines, 7, NOON, NOON, NOON, NOON)
    return replace(fulfillment, **changes)  # type: ignore[arg-type] # fields by name


def test_a_fulfillment_is_shown_without_the_keys_that_are_held() -> None:
    shown = fulfillment_to_proto(a_fulfillment(), for_customer=False)
    assert [key.key_id for key in shown.lines[0].keys] == ["key-1"]
    assert shown.lines[0].keys[0].open_time.ToDatetime(UTC) == NOON
    assert (shown.state, shown.reason) == (pb.STATE_NEEDS_ATTENTION, "DUPLICATE_KEY")
    assert (shown.paid.currency_code, shown.paid.minor_units) == ("EUR", 1000)
    assert shown.customer.email == ALICE.email
    assert shown.pay_time == shown.mail_time == stamp(NOON)
    (purchase,) = shown.lines[0].purchases
    assert purchase == pb.Purchase(
        external_id="kf1-a",
        supplier_order_id="PHS1",
        quantity=2,
        state=pb.STATE_NEEDS_ATTENTION,
        reason="DUPLICATE_KEY",
        place_time=stamp(NOON),
        offer_id="offer-1",
        attempt=2,
        refusal="ProductUnavailable",
        actions=[pb.ACTION_RETRY, pb.ACTION_DELIVER_MANUALLY, pb.ACTION_REPLACE_KEY, pb.ACTION_CANCEL],
        next_time=stamp(NOON),
    )
    # Never more than was ordered.
    assert shown.lines[0].canceled_quantity == 2


def test_a_key_in_whose_place_another_is_bought_says_so() -> None:
    found = a_fulfillment()
    (line,) = found.lines
    replaced = replace(line, keys=[replace(line.keys[0], replace_time=NOON)])
    shown = fulfillment_to_proto(replace(found, lines=[replaced]), for_customer=True)
    assert shown.lines[0].keys[0].replaced


def test_what_can_be_done_for_the_order_is_shown_to_staff_only() -> None:
    unpaid = a_fulfillment(state=State.AWAITING_PAYMENT, reason=Reason.NONE)
    assert list(fulfillment_to_proto(unpaid, for_customer=False).actions) == [pb.ACTION_CANCEL]
    assert not fulfillment_to_proto(unpaid, for_customer=True).actions
    mismatched = a_fulfillment(reason=Reason.PAYMENT_MISMATCH)
    assert list(fulfillment_to_proto(mismatched, for_customer=False).actions) == [pb.ACTION_REFUND]


def test_a_customer_is_not_shown_how_it_is_bought() -> None:
    assert not fulfillment_to_proto(a_fulfillment(), for_customer=True).lines[0].purchases


def test_what_has_not_happened_is_absent() -> None:
    absent = a_fulfillment(paid=None, pay_time=None, mail_time=None)
    names = {"paid", "refunded", "pay_time", "mail_time", "cancel_time"}
    assert not names & _present(fulfillment_to_proto(absent, for_customer=True))
    present = a_fulfillment(refunded=Amount("EUR", 5), cancel_time=NOON)
    assert names <= _present(fulfillment_to_proto(present, for_customer=True))


def _present(message: pb.Fulfillment) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def test_a_product_without_a_name_is_shown_by_its_number() -> None:
    line = Line(an_order().items[0], "", [], [], State.AWAITING_PAYMENT, Reason.NONE)
    shown = fulfillment_to_proto(a_fulfillment(lines=[line]), for_customer=True)
    assert shown.lines[0].product_name == "product-1"
