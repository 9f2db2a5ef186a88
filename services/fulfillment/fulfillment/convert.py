"""Requests, events and answers of fulfillment: contracts on one side, its own words on the other."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.errors import InvalidRequest
from chassis.money import money_from_proto
from chassis.validation import Faults
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.fulfillment.v1 import fulfillment_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as service_pb
from keyferry.type.v1 import actor_pb2, money_pb2

from fulfillment.domain.fold import ORDER_STATES
from fulfillment.domain.model import (
    Amount,
    Customer,
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
    Refund,
    State,
)
from fulfillment.domain.policy import actions, order_actions
from fulfillment.facts import actions_to_proto, amount_to_proto, timestamp
from fulfillment.ports.vault import KeyWish, Viewer

MOST_ITEMS = 50
MOST_QUANTITY = 1000
# More purchases than an order of the most lines and keys has.
MOST_REQUESTS = 10_000
# Ten thousand million in a currency of hundredths: beyond it somebody's units are wrong.
MOST_MINOR_UNITS = 10**12
MOST_RECIPIENT_BYTES = 1024
# RFC 5646 section 4.4.1 asks for room for 35 characters.
LONGEST_LOCALE = 35
# RFC 5321 leaves a lot open; what matters is one mailbox, no control characters and a domain.
_EMAIL = re.compile(r"[^\s\x00-\x1f\x7f@<>()\[\]\\,;:\"]{1,64}@[^\s\x00-\x1f\x7f@<>()\[\]\\,;:\"]{1,255}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


def order_from_proto(message: pb.Order, faults: Faults) -> Order:
    """Read an order, noting every fault."""
    if not 1 <= len(message.items) <= MOST_ITEMS:
        faults.add("order.items", f"must hold 1 to {MOST_ITEMS} lines")
    item_ids = [item.item_id for item in message.items]
    for index, item_id in enumerate(item_ids):
        if item_id in item_ids[:index]:
            faults.add(f"order.items[{index}].item_id", "stands for another line already")
    return Order(
        order_id=OrderId(faults.identifier("order.order_id", message.order_id)),
        customer=_customer(message.customer, faults),
        total=_amount("order.total", message.total, faults),
        items=[
            _item(f"order.items[{index}]", item, message.total.currency_code, faults)
            for index, item in enumerate(message.items)
        ],
    )


def _customer(message: pb.Customer, faults: Faults) -> Customer:
    faults.require("order.customer.customer_id", message.customer_id)
    if not _EMAIL.fullmatch(message.email):
        faults.add("order.customer.email", "must be an e-mail address")
    if message.locale and not (len(message.locale) <= LONGEST_LOCALE and _LOCALE.fullmatch(message.locale)):
        faults.add("order.customer.locale", "must be a BCP 47 language tag, for example de")
    if message.country_code and not _COUNTRY.fullmatch(message.country_code):
        faults.add("order.customer.country_code", "must be an ISO 3166-1 alpha-2 code, for example DE")
    return Customer(message.customer_id, message.email, message.locale, message.country_code)


def _item(field: str, message: pb.Item, currency_code: str, faults: Faults) -> Item:
    faults.identifier(f"{field}.item_id", message.item_id)
    faults.identifier(f"{field}.product_id", message.product_id)
    if message.offer_id:
        faults.identifier(f"{field}.offer_id", message.offer_id)
    if not 1 <= message.quantity <= MOST_QUANTITY:
        faults.add(f"{field}.quantity", f"must be 1 to {MOST_QUANTITY}")
    if message.max_unit_price.currency_code != "EUR":
        faults.add(f"{field}.max_unit_price.currency_code", "must be EUR: the supplier sells in EUR")
    _check_minor_units(f"{field}.max_unit_price", message.max_unit_price, faults)
    if message.HasField("unit_price"):
        if message.unit_price.currency_code != currency_code:
            faults.add(f"{field}.unit_price.currency_code", "must be the total's")
        _check_minor_units(f"{field}.unit_price", message.unit_price, faults)
    if message.key_type not in {"", "text"}:
        faults.add(f"{field}.key_type", "must be text, or empty")
    return Item(
        item_id=ItemId(message.item_id),
        product_id=message.product_id,
        quantity=message.quantity,
        max_unit_price=message.max_unit_price.minor_units,
        offer_id=message.offer_id,
        key_type=message.key_type,
        unit_price=message.unit_price.minor_units if message.HasField("unit_price") else None,
    )


def _amount(field: str, message: money_pb2.Money, faults: Faults) -> Amount:
    try:
        money_from_proto(message)
    except ValueError as fault:
        faults.add(f"{field}.currency_code", str(fault))
    _check_minor_units(field, message, faults)
    return Amount(message.currency_code, message.minor_units)


def _check_minor_units(field: str, message: money_pb2.Money, faults: Faults) -> None:
    if not 1 <= message.minor_units <= MOST_MINOR_UNITS:
        faults.add(f"{field}.minor_units", "must be positive, in the currency's minor units")


def payment_from_proto(message: pb.Payment, faults: Faults) -> Payment:
    """Read a payment, noting every fault."""
    faults.require("payment.payment_id", message.payment_id, longest=128)
    faults.require("payment.provider", message.provider, longest=64)
    if not message.HasField("confirm_time"):
        faults.add("payment.confirm_time", "is required")
    confirm_time = _moment("payment.confirm_time", message.confirm_time, faults)
    return Payment(
        provider=message.provider,
        payment_id=message.payment_id,
        order_id=OrderId(faults.identifier("payment.order_id", message.order_id)),
        amount=_amount("payment.amount", message.amount, faults),
        confirm_time=confirm_time,
    )


def refund_from_proto(message: pb.Refund, faults: Faults) -> Refund:
    """Read a refund, noting every fault."""
    faults.require("refund.refund_id", message.refund_id, longest=128)
    faults.require("refund.payment_id", message.payment_id, longest=128)
    faults.require("refund.provider", message.provider, longest=64)
    if not message.HasField("refund_time"):
        faults.add("refund.refund_time", "is required")
    if len(message.item_ids) > MOST_ITEMS:
        faults.add("refund.item_ids", f"may hold at most {MOST_ITEMS} lines")
    for index, item_id in enumerate(message.item_ids[:MOST_ITEMS]):
        faults.identifier(f"refund.item_ids[{index}]", item_id)
    if len(message.refund_request_ids) > MOST_REQUESTS:
        faults.add("refund.refund_request_ids", f"may hold at most {MOST_REQUESTS} requests")
    for index, name in enumerate(message.refund_request_ids[:MOST_REQUESTS]):
        faults.identifier(f"refund.refund_request_ids[{index}]", name)
    return Refund(
        provider=message.provider,
        refund_id=message.refund_id,
        payment_id=message.payment_id,
        amount=_amount("refund.amount", message.amount, faults),
        refund_time=_moment("refund.refund_time", message.refund_time, faults),
        item_ids=tuple(ItemId(item_id) for item_id in message.item_ids),
        request_ids=tuple(message.refund_request_ids),
        is_chargeback=message.chargeback,
    )


def _moment(field: str, message: Timestamp, faults: Faults) -> datetime:
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError):
        faults.add(field, "must be a moment between the years 1 and 9999")
        return datetime.min.replace(tzinfo=UTC)


def order_digest(message: pb.Order) -> bytes:
    """Return what tells one order's content from another's."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


@dataclass(frozen=True, slots=True)
class Cancel:
    """A wish to give up what an order waits for."""

    request_id: str
    order_id: OrderId
    item_ids: Sequence[ItemId]
    reason: str


def cancel_from_proto(request: service_pb.CancelFulfillmentRequest) -> Cancel:
    """Read a wish to cancel. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.identifier("order_id", request.order_id)
    if len(request.item_ids) > MOST_ITEMS:
        faults.add("item_ids", f"may hold at most {MOST_ITEMS} lines")
    for index, item_id in enumerate(request.item_ids[:MOST_ITEMS]):
        faults.identifier(f"item_ids[{index}]", item_id)
    faults.require("reason", request.reason)
    faults.raise_if_any()
    item_ids = [ItemId(item_id) for item_id in request.item_ids]
    return Cancel(request_id, OrderId(request.order_id), item_ids, request.reason)


def wish_from_proto(request: service_pb.CreateDownloadLinkRequest | service_pb.RevealKeyRequest) -> KeyWish:
    """Read a wish to open a key. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    faults.identifier("order_id", request.order_id)
    faults.identifier("key_id", request.key_id)
    if request.actor.type != actor_pb2.ACTOR_TYPE_CUSTOMER:
        faults.add("actor.type", "must be ACTOR_TYPE_CUSTOMER: only its owner opens a key")
    faults.require("actor.id", request.actor.id)
    if not 1 <= len(request.recipient_jwk) <= MOST_RECIPIENT_BYTES:
        faults.add("recipient_jwk", "must be a P-256 public key as a JWK")
    faults.raise_if_any()
    actor = request.actor
    viewer = Viewer(actor.id, actor.email, actor.ip_address, actor.user_agent, actor.country_code)
    return KeyWish(request_id, OrderId(request.order_id), KeyId(request.key_id), viewer, request.recipient_jwk)


def state_from_proto(state: pb.State.ValueType) -> State | None:
    """Read a filter. Raises InvalidRequest for a state that no order can have."""
    if state == pb.STATE_UNSPECIFIED:
        return None
    for known in ORDER_STATES:
        if state == _state(known):
            return known
    raise InvalidRequest.of("state", "must be a state that an order can be in")


def fulfillment_to_proto(found: Fulfillment, *, for_customer: bool) -> pb.Fulfillment:
    """Render a fulfillment; a customer is not shown how it is bought."""
    customer = found.order.customer
    message = pb.Fulfillment(
        order_id=found.order.order_id,
        customer=pb.Customer(
            customer_id=customer.customer_id,
            email=customer.email,
            locale=customer.locale,
            country_code=customer.country_code,
        ),
        total=amount_to_proto(found.order.total),
        paid=None if found.paid is None else amount_to_proto(found.paid),
        state=_state(found.state),
        reason=found.reason,
        lines=[_line_to_proto(line, for_customer=for_customer) for line in found.lines],
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
        refunded=None if found.refunded is None else amount_to_proto(found.refunded),
        actions=[] if for_customer else actions_to_proto(order_actions(found)),
    )
    if found.cancel_time is not None:
        message.cancel_time.CopyFrom(timestamp(found.cancel_time))
    if found.pay_time is not None:
        message.pay_time.CopyFrom(timestamp(found.pay_time))
    if found.mail_time is not None:
        message.mail_time.CopyFrom(timestamp(found.mail_time))
    return message


def _line_to_proto(line: Line, *, for_customer: bool) -> pb.Line:
    return pb.Line(
        item_id=line.item.item_id,
        product_id=line.item.product_id,
        product_name=line.product_name or line.item.product_id,
        quantity=line.item.quantity,
        state=_state(line.state),
        reason=line.reason,
        keys=[_key_to_proto(key) for key in line.keys if key.is_openable],
        purchases=[] if for_customer else [_purchase_to_proto(purchase, line) for purchase in line.purchases],
        canceled_quantity=min(sum(each.canceled_quantity for each in line.purchases), line.item.quantity),
    )


def _key_to_proto(key: Key) -> pb.Key:
    message = pb.Key(
        key_id=key.key_id,
        content_type=key.content_type,
        ready_time=timestamp(key.ready_time),
        replaced=key.replace_time is not None,
    )
    if key.open_time is not None:
        message.open_time.CopyFrom(timestamp(key.open_time))
    return message


def _purchase_to_proto(purchase: Purchase, line: Line) -> pb.Purchase:
    message = pb.Purchase(
        external_id=purchase.external_id,
        supplier_order_id=purchase.supplier_order_id,
        quantity=purchase.quantity,
        state=_state(purchase.state),
        reason=purchase.reason,
        offer_id=purchase.offer_id,
        attempt=purchase.attempt,
        replaced_key_id=purchase.replaced_key_id or "",
        refusal=purchase.refusal,
        actions=actions_to_proto(actions(purchase, line.keys_of(purchase.external_id))),
    )
    if purchase.place_time is not None:
        message.place_time.CopyFrom(timestamp(purchase.place_time))
    if purchase.next_time is not None:
        message.next_time.CopyFrom(timestamp(purchase.next_time))
    return message


def _state(state: State) -> pb.State.ValueType:
    return pb.State.Value(f"STATE_{state.name}")
