"""Between the contract and the domain. All limits of a request are checked here, before anything is sent or stored."""

import re
from dataclasses import dataclass

from chassis.money import Money, money_from_proto, money_to_proto
from chassis.request_log import request_digest
from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import money_pb2

from kinguin_gateway.collecting import Collection
from kinguin_gateway.domain.purchase import (
    Intent,
    KeyRef,
    Product,
    Purchase,
    PurchaseState,
    SupplierOrderState,
)
from kinguin_gateway.reading import Check

# K19: the supplier sells at most this many of one offer in an order.
MOST_QUANTITY = 9
# The supplier refuses prices above; a ceiling of a million is no ceiling.
MOST_UNIT_CENTS = 1_000_000_00
EURO = "EUR"
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

_STATES = {
    PurchaseState.INTENDED: pb.PURCHASE_STATE_INTENDED,
    PurchaseState.IN_DOUBT: pb.PURCHASE_STATE_IN_DOUBT,
    PurchaseState.PLACED: pb.PURCHASE_STATE_PLACED,
    PurchaseState.REFUSED: pb.PURCHASE_STATE_REFUSED,
}
_ORDER_STATES = {
    SupplierOrderState.PROCESSING: pb.SUPPLIER_ORDER_STATE_PROCESSING,
    SupplierOrderState.COMPLETED: pb.SUPPLIER_ORDER_STATE_COMPLETED,
    SupplierOrderState.CANCELED: pb.SUPPLIER_ORDER_STATE_CANCELED,
    SupplierOrderState.REFUNDED: pb.SUPPLIER_ORDER_STATE_REFUNDED,
}


@dataclass(frozen=True, slots=True)
class CollectRequest:
    """A request to collect keys."""

    external_id: str
    customer_id: str
    request_id: str
    digest: bytes


def intent_from_proto(request: pb.PlaceOrderRequest) -> tuple[Intent, str]:
    """Return what is to be bought and the request id. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    intent = Intent(
        external_id=_external_id(faults, request.external_id),
        order_id=_text(faults, "order_id", request.order_id),
        item_id=_text(faults, "item_id", request.item_id),
        product_id=faults.identifier("product_id", request.product_id),
        offer_id=faults.identifier("offer_id", request.offer_id) if request.offer_id else "",
        quantity=request.quantity,
        max_unit_cents=_unit_cents(faults, request),
        key_type=request.key_type,
    )
    if not 1 <= request.quantity <= MOST_QUANTITY:
        faults.add("quantity", f"must be 1 to {MOST_QUANTITY}")
    if request.key_type not in {"", "text"}:
        faults.add("key_type", "must be text, or empty")
    faults.raise_if_any()
    return intent, request_id


def _unit_cents(faults: Faults, request: pb.PlaceOrderRequest) -> int:
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


def _external_id(faults: Faults, value: str) -> str:
    if not _EXTERNAL_ID.fullmatch(value):
        faults.add("external_id", "must have 1 to 64 letters, digits and hyphens")
    return value


def external_id_from_proto(request: pb.GetOrderRequest) -> str:
    """Return the purchase asked for. Raises InvalidRequest."""
    faults = Faults()
    external_id = _external_id(faults, request.external_id)
    faults.raise_if_any()
    return external_id


def collect_from_proto(request: pb.CollectKeysRequest) -> CollectRequest:
    """Return what is to be collected. Raises InvalidRequest with every fault."""
    faults = Faults()
    collect = CollectRequest(
        external_id=_external_id(faults, request.external_id),
        customer_id=_text(faults, "customer_id", request.customer_id),
        request_id=faults.request_id(request.request_id),
        digest=request_digest(request),
    )
    faults.raise_if_any()
    return collect


def product_id_from_proto(request: pb.GetProductRequest) -> str:
    """Return the product asked for. Raises InvalidRequest."""
    faults = Faults()
    product_id = faults.identifier("product_id", request.product_id)
    faults.raise_if_any()
    return product_id


def purchase_to_proto(purchase: Purchase) -> pb.Purchase:
    """Render a purchase."""
    state = purchase.supplier_order_state
    message = pb.Purchase(
        external_id=purchase.intent.external_id,
        supplier_order_id=purchase.supplier_order_id,
        state=_STATES[purchase.state],
        supplier_order_state=pb.SUPPLIER_ORDER_STATE_UNSPECIFIED if state is None else _ORDER_STATES[state],
        quantity=purchase.intent.quantity,
        sealed_count=purchase.sealed_count,
        product_name=purchase.product_name,
        charged_amount=_euro(purchase.charged_cents),
    )
    message.create_time.FromDatetime(purchase.create_time)
    return message


def collection_to_proto(collection: Collection) -> pb.CollectKeysResponse:
    """Render the keys of a purchase."""
    return pb.CollectKeysResponse(
        purchase=purchase_to_proto(collection.purchase),
        keys=[_key_to_proto(key) for key in collection.keys],
        more_keys_ready=collection.more_keys_ready,
    )


def _key_to_proto(key: KeyRef) -> pb.KeyRef:
    return pb.KeyRef(key_id=key.key_id, content_type=key.content_type, held=key.held)


def product_to_proto(product: Product) -> pb.Product:
    """Render a product."""
    return pb.Product(
        product_id=product.product_id,
        name=product.name,
        price=_euro(product.cheapest_cents),
        available_quantity=product.available_quantity,
        preorder=product.preorder,
        excluded_countries=product.excluded_countries,
        activation_details=product.activation_details,
    )


def check_to_proto(check: Check) -> pb.CheckSupplierResponse:
    """Render the supplier's health."""
    message = pb.CheckSupplierResponse(
        reachable=check.health.reachable,
        authorized=check.health.authorized,
        balance=_euro(check.health.balance_cents),
        detail=check.health.detail,
    )
    message.latency.FromTimedelta(check.latency)
    return message


def _euro(cents: int | None) -> money_pb2.Money | None:
    return None if cents is None else money_to_proto(Money(EURO, cents))
