"""kinguin-gateway over gRPC. Its errors become answers here: a refusal and a doubt on paths of their own."""

import uuid
from collections.abc import Mapping

import grpc
import structlog
from chassis.errors import KeyferryError
from chassis.money import Money, money_to_proto
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub

from fulfillment.domain.model import KeyId
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    CollectAnswer,
    Collected,
    InDoubt,
    NoAnswer,
    Paused,
    PlaceAnswer,
    Placed,
    Refused,
    Unknown,
    Unreadable,
)

logger = structlog.get_logger(__name__)

PLACE_SECONDS = 70.0
COLLECT_SECONDS = 60.0
# A customer of the shop waits at the checkout for this one.
PRODUCT_SECONDS = 2.0
_NAMESPACE = uuid.UUID("5f1f4f6e-53a0-4e43-8a0e-0f9a3c0d7b21")
# Asking again changes nothing about these.
_NOT_COLLECTED: Mapping[str, CollectAnswer] = {
    "KEY_UNREADABLE": Unreadable(),
    "SOURCE_REF_CONFLICT": Unreadable(),
    "PURCHASE_UNKNOWN": Unknown(),
    "PURCHASE_NOT_PLACED": Unknown(),
}
_ENDED = {pb.SUPPLIER_ORDER_STATE_CANCELED, pb.SUPPLIER_ORDER_STATE_REFUNDED, pb.SUPPLIER_ORDER_STATE_COMPLETED}


class GrpcSupplier:
    """The supplier's side, as this service sees it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = KinguinServiceStub(channel)

    async def place(self, buying: Buying) -> PlaceAnswer:
        """Buy, or learn what became of buying."""
        purchase, item = buying.purchase, buying.item
        request = pb.PlaceOrderRequest(
            request_id=_request_id("place", purchase.external_id),
            external_id=purchase.external_id,
            order_id=purchase.order_id,
            item_id=purchase.item_id,
            product_id=item.product_id,
            offer_id=item.offer_id,
            quantity=purchase.quantity,
            max_unit_price=money_to_proto(Money("EUR", item.max_unit_price)),
            key_type=item.key_type,
            country_code=buying.country_code,
        )
        try:
            placed = (await self._stub.PlaceOrder(request, timeout=PLACE_SECONDS)).purchase
        except KeyferryError as error:
            return not_placed(error)
        charged = placed.charged_amount.minor_units if placed.HasField("charged_amount") else None
        return Placed(placed.supplier_order_id, placed.product_name, charged)

    async def collect(self, buying: Buying) -> CollectAnswer:
        """Have what has been delivered sealed."""
        purchase = buying.purchase
        request = pb.CollectKeysRequest(
            request_id=_request_id("collect", purchase.external_id),
            external_id=purchase.external_id,
            customer_id=buying.customer_id,
        )
        try:
            answer = await self._stub.CollectKeys(request, timeout=COLLECT_SECONDS)
        except KeyferryError as error:
            logger.warning("keys were not collected", external_id=purchase.external_id, reason=error.reason)
            return _NOT_COLLECTED.get(error.reason, NoAnswer())
        return Collected(
            keys=[ArrivedKey(KeyId(key.key_id), key.content_type, key.held) for key in answer.keys],
            product_name=answer.purchase.product_name,
            more_ready=answer.more_keys_ready,
            ended=answer.purchase.supplier_order_state in _ENDED,
        )

    async def knows_product(self, product_id: str) -> bool | None:
        """Tell whether the supplier sells a product."""
        try:
            await self._stub.GetProduct(pb.GetProductRequest(product_id=product_id), timeout=PRODUCT_SECONDS)
        except KeyferryError as error:
            return False if error.reason == "PRODUCT_UNKNOWN" else None
        return True


def not_placed(error: KeyferryError) -> PlaceAnswer:
    """Say what an error of PlaceOrder tells about the purchase."""
    if error.reason == "PURCHASE_REFUSED":
        return Refused(error.metadata.get("kind", ""))
    if error.reason == "PURCHASE_IN_DOUBT":
        return InDoubt(error.retry_after)
    if error.reason == "BUYING_PAUSED":
        return Paused(error.retry_after)
    # Whatever else: nothing is known that was not known before, and the same question is safe to ask again.
    logger.warning("no answer to a purchase", reason=error.reason)
    return NoAnswer()


def _request_id(what: str, external_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{what}/{external_id}"))
