"""Products and the supplier's own orders, between the contract and the domain."""

from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb

from kinguin_gateway.convert import KEY_STATES_TO_PROTO, ORDER_STATES_TO_PROTO, euro, given_time
from kinguin_gateway.domain.purchase import Offer, OrderLine, Product, SupplierKeyState, SupplierOrder
from kinguin_gateway.domain.refunds import key_states, paid_back_cents
from kinguin_gateway.ports.supplier import OrderFilter

_COUNTED = {
    "delivered_count": SupplierKeyState.DELIVERED,
    "returned_count": SupplierKeyState.RETURNED,
    "refunded_count": SupplierKeyState.REFUNDED,
    "canceled_count": SupplierKeyState.CANCELED,
}
_ORDER_STATES_FROM_PROTO = {number: state for state, number in ORDER_STATES_TO_PROTO.items()}


def product_id_from_proto(request: pb.GetProductRequest) -> str:
    """Return the product asked for. Raises InvalidRequest."""
    faults = Faults()
    product_id = faults.identifier("product_id", request.product_id)
    faults.raise_if_any()
    return product_id


def product_to_proto(product: Product) -> pb.Product:
    """Render a product."""
    message = pb.Product(
        product_id=product.product_id,
        name=product.name,
        price=euro(product.cheapest_cents),
        available_quantity=product.available_quantity,
        preorder=product.preorder,
        excluded_countries=product.excluded_countries,
        activation_details=product.activation_details,
        available_text_quantity=sum(offer.available_text for offer in product.offers),
        platform=product.platform,
        region=product.region,
        offers=[_offer_to_proto(offer) for offer in sorted(product.offers, key=_by_price)],
    )
    if product.release_time is not None:
        message.release_time.FromDatetime(product.release_time)
    if product.update_time is not None:
        message.update_time.FromDatetime(product.update_time)
    return message


def _by_price(offer: Offer) -> tuple[bool, int, str]:
    return offer.price_cents is None, offer.price_cents or 0, offer.offer_id


def _offer_to_proto(offer: Offer) -> pb.Offer:
    return pb.Offer(
        offer_id=offer.offer_id,
        merchant_name=offer.merchant_name,
        price=euro(offer.price_cents),
        available_quantity=offer.available,
        available_text_quantity=offer.available_text,
        wholesale_tiers=[
            pb.WholesaleTier(min_quantity=tier.min_quantity, price=euro(tier.price_cents)) for tier in offer.tiers
        ],
    )


def order_filter_from_proto(request: pb.SearchOrdersRequest) -> OrderFilter:
    """Return which orders are wanted. Raises InvalidRequest with every fault."""
    faults = Faults()
    for field in ("external_id", "supplier_order_id", "product_id"):
        if value := getattr(request, field):
            faults.identifier(field, value)
    if request.state and request.state not in _ORDER_STATES_FROM_PROTO:
        faults.add("state", "must be a state of the supplier's orders, or absent")
    wanted = OrderFilter(
        external_id=request.external_id,
        supplier_order_id=request.supplier_order_id,
        product_id=request.product_id,
        state=_ORDER_STATES_FROM_PROTO.get(request.state),
        preorder=request.preorder if request.HasField("preorder") else None,
        start_time=faults.moment("start_time", given_time(request, "start_time")),
        end_time=faults.moment("end_time", given_time(request, "end_time")),
    )
    faults.raise_if_any()
    return wanted


def order_to_proto(order: SupplierOrder) -> pb.SupplierOrder:
    """Render an order as the supplier tells it."""
    message = pb.SupplierOrder(
        supplier_order_id=order.supplier_order_id,
        external_id=order.external_id,
        state=ORDER_STATES_TO_PROTO[order.state],
        charged_amount=euro(order.charged_cents),
        total_amount=euro(order.total_cents),
        preorder=order.preorder,
        lines=[_line_to_proto(line) for line in order.lines],
        refunded_amount=euro(paid_back_cents(order)),
        quantity=order.quantity,
        key_counts=_key_counts(order),
    )
    if order.create_time is not None:
        message.create_time.FromDatetime(order.create_time)
    return message


def _key_counts(order: SupplierOrder) -> pb.SupplierKeyCounts | None:
    counts = key_states(order)
    if counts is None:
        return None
    told = {field: counts.get(state, 0) for field, state in _COUNTED.items()}
    return pb.SupplierKeyCounts(pending_count=sum(counts.values()) - sum(told.values()), **told)


def _line_to_proto(line: OrderLine) -> pb.SupplierOrderLine:
    keys = [
        pb.SupplierKey(
            supplier_key_id=key.supplier_key_id,
            state=pb.SUPPLIER_KEY_STATE_UNSPECIFIED if key.state is None else KEY_STATES_TO_PROTO[key.state],
        )
        for key in line.keys
    ]
    return pb.SupplierOrderLine(
        product_id=line.product_id or "",
        offer_id=line.offer_id or "",
        quantity=line.quantity or 0,
        product_name=line.name,
        keys=keys,
    )
