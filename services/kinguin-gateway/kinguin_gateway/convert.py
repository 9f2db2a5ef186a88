"""Between the contract and the domain. All limits of a request are checked here, before anything is sent or stored."""

import re
from dataclasses import dataclass

from chassis.money import Money, money_from_proto, money_to_proto
from chassis.request_log import request_digest
from chassis.validation import Faults
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import money_pb2

from kinguin_gateway.collecting import Collection, UnreadableKey
from kinguin_gateway.domain.offers import LEAST_WHOLESALE, MOST_PER_OFFER, MOST_WHOLESALE
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Problem,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrderState,
)

# The supplier refuses prices above; a ceiling of a million is no ceiling.
MOST_UNIT_CENTS = 1_000_000_00
# As many as a person will read; the count tells of the rest.
MOST_UNREADABLE_LISTED = 100
EURO = "EUR"
_COUNTRY_CODE = re.compile(r"[A-Z]{2}")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
# Both say in the same fields what is, or is not, to be bought.
_Wanted = pb.PlaceOrderRequest | pb.WithdrawPurchaseRequest

STATES_TO_PROTO = {
    PurchaseState.INTENDED: pb.PURCHASE_STATE_INTENDED,
    PurchaseState.IN_DOUBT: pb.PURCHASE_STATE_IN_DOUBT,
    PurchaseState.PLACED: pb.PURCHASE_STATE_PLACED,
    PurchaseState.REFUSED: pb.PURCHASE_STATE_REFUSED,
}
KEY_STATES_TO_PROTO = {
    SupplierKeyState.PENDING: pb.SUPPLIER_KEY_STATE_PENDING,
    SupplierKeyState.PROCESSING: pb.SUPPLIER_KEY_STATE_PROCESSING,
    SupplierKeyState.DELIVERED: pb.SUPPLIER_KEY_STATE_DELIVERED,
    SupplierKeyState.RETURNED: pb.SUPPLIER_KEY_STATE_RETURNED,
    SupplierKeyState.REFUNDED: pb.SUPPLIER_KEY_STATE_REFUNDED,
    SupplierKeyState.CANCELED: pb.SUPPLIER_KEY_STATE_CANCELED,
}
ORDER_STATES_TO_PROTO = {
    SupplierOrderState.PROCESSING: pb.SUPPLIER_ORDER_STATE_PROCESSING,
    SupplierOrderState.COMPLETED: pb.SUPPLIER_ORDER_STATE_COMPLETED,
    SupplierOrderState.CANCELED: pb.SUPPLIER_ORDER_STATE_CANCELED,
    SupplierOrderState.REFUNDED: pb.SUPPLIER_ORDER_STATE_REFUNDED,
}


@dataclass(frozen=True, slots=True)
class PlaceRequest:
    """A request to buy. The country is no part of the intent: a repeat with another one is the same purchase."""

    intent: Intent
    request_id: str
    country_code: str


@dataclass(frozen=True, slots=True)
class CollectRequest:
    """A request to collect keys."""

    external_id: str
    customer_id: str
    request_id: str
    digest: bytes


def place_from_proto(request: pb.PlaceOrderRequest) -> PlaceRequest:
    """Return what is to be bought. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    intent = _intent(faults, request)
    if request.country_code and not _COUNTRY_CODE.fullmatch(request.country_code):
        faults.add("country_code", "must be two upper-case letters (ISO 3166-1 alpha-2), or empty")
    faults.raise_if_any()
    return PlaceRequest(intent, request_id, request.country_code)


def withdraw_from_proto(request: pb.WithdrawPurchaseRequest) -> tuple[Intent, str]:
    """Return what is never to be bought, and the request id. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    intent = _intent(faults, request)
    faults.raise_if_any()
    return intent, request_id


def _intent(faults: Faults, request: _Wanted) -> Intent:
    intent = Intent(
        external_id=check_external_id(faults, request.external_id),
        order_id=_text(faults, "order_id", request.order_id),
        item_id=_text(faults, "item_id", request.item_id),
        product_id=faults.identifier("product_id", request.product_id),
        offer_id=faults.identifier("offer_id", request.offer_id) if request.offer_id else "",
        quantity=request.quantity,
        max_unit_cents=_unit_cents(faults, request),
        key_type=request.key_type,
    )
    _check_quantity(faults, request)
    if request.key_type not in {"", "text"}:
        faults.add("key_type", "must be text, or empty")
    return intent


def _check_quantity(faults: Faults, request: _Wanted) -> None:
    if request.quantity < 1 or request.quantity > MOST_WHOLESALE:
        faults.add("quantity", f"must be 1 to {MOST_PER_OFFER}, or {LEAST_WHOLESALE} to {MOST_WHOLESALE} of one offer")
    elif request.quantity >= LEAST_WHOLESALE and not request.offer_id:
        faults.add("offer_id", f"is required from {LEAST_WHOLESALE} keys on: they are bought wholesale, of one offer")


def _unit_cents(faults: Faults, request: _Wanted) -> int:
    if not request.HasField("max_unit_price"):
        faults.add("max_unit_price", "is required")
        return 0
    try:
        price = money_from_proto(request.max_unit_price)
    except ValueError as error:
        faults.add("max_unit_price.currency_code", str(error))
        return 0
    if price.currency_code != EURO:
        faults.add("max_unit_price.currency_code", "must be EUR, the supplier's only currency")
    if not 0 < price.minor_units <= MOST_UNIT_CENTS:
        faults.add("max_unit_price.minor_units", f"must be 1 to {MOST_UNIT_CENTS}")
    return price.minor_units


def _text(faults: Faults, field: str, value: str) -> str:
    if value and not value.isprintable():
        faults.add(field, "may hold printable characters only")
    return faults.require(field, value)


def check_external_id(faults: Faults, value: str) -> str:
    """Demand a reference as we derive them."""
    if not _EXTERNAL_ID.fullmatch(value):
        faults.add("external_id", "must have 1 to 64 letters, digits and hyphens")
    return value


def external_id_from_proto(request: pb.GetOrderRequest) -> str:
    """Return the purchase asked for. Raises InvalidRequest."""
    faults = Faults()
    external_id = check_external_id(faults, request.external_id)
    faults.raise_if_any()
    return external_id


def collect_from_proto(request: pb.CollectKeysRequest) -> CollectRequest:
    """Return what is to be collected. Raises InvalidRequest with every fault."""
    faults = Faults()
    collect = CollectRequest(
        external_id=check_external_id(faults, request.external_id),
        customer_id=_text(faults, "customer_id", request.customer_id),
        request_id=faults.request_id(request.request_id),
        digest=request_digest(request),
    )
    faults.raise_if_any()
    return collect


def purchase_to_proto(purchase: Purchase) -> pb.Purchase:
    """Render a purchase."""
    state = purchase.supplier_order_state
    message = pb.Purchase(
        external_id=purchase.intent.external_id,
        supplier_order_id=purchase.supplier_order_id,
        state=STATES_TO_PROTO[purchase.state],
        supplier_order_state=pb.SUPPLIER_ORDER_STATE_UNSPECIFIED if state is None else ORDER_STATES_TO_PROTO[state],
        quantity=purchase.intent.quantity,
        sealed_count=purchase.sealed_count,
        product_name=purchase.product_name,
        charged_amount=euro(purchase.charged_cents),
        order_id=purchase.intent.order_id,
        item_id=purchase.intent.item_id,
        product_id=purchase.intent.product_id,
        offer_id=purchase.intent.offer_id,
        attempt=purchase.attempt,
        parked=purchase.parked,
        delivered_count=purchase.delivered_count,
        canceled_count=purchase.canceled_count,
        withdrawn=purchase.withdrawn,
        refunded_amount=euro(purchase.refunded_cents),
        max_unit_price=euro(purchase.intent.max_unit_cents),
    )
    message.create_time.FromDatetime(purchase.create_time)
    if purchase.state is PurchaseState.REFUSED:
        message.refusal.CopyFrom(problem_to_proto(purchase.refusal))
    if purchase.release_time is not None:
        message.release_time.FromDatetime(purchase.release_time)
    return message


def problem_to_proto(problem: Problem) -> pb.SupplierProblem:
    """Render the supplier's words."""
    return pb.SupplierProblem(kind=problem.kind, detail=problem.detail, trace=problem.trace)


def collection_to_proto(collection: Collection) -> pb.CollectKeysResponse:
    """Render the keys of a purchase."""
    return pb.CollectKeysResponse(
        purchase=purchase_to_proto(collection.purchase),
        keys=[_key_to_proto(key) for key in collection.keys],
        more_keys_ready=collection.more_keys_ready,
        unreadable_keys=[_unreadable_to_proto(key) for key in collection.unreadable[:MOST_UNREADABLE_LISTED]],
        unreadable_count=len(collection.unreadable),
    )


def _unreadable_to_proto(key: UnreadableKey) -> pb.UnreadableKey:
    return pb.UnreadableKey(source_ref=key.source_ref, content_type=key.content_type)


def _key_to_proto(key: KeyRef) -> pb.KeyRef:
    return pb.KeyRef(
        key_id=key.key_id, content_type=key.content_type, held=key.held, state=KEY_STATES_TO_PROTO[key.state]
    )


def given_time(message: Message, field: str) -> Timestamp | None:
    """Return a time that may be absent."""
    return getattr(message, field) if message.HasField(field) else None


def euro(cents: int | None) -> money_pb2.Money | None:
    """Render an amount in EUR; None stays absent."""
    return None if cents is None else money_to_proto(Money(EURO, cents))
