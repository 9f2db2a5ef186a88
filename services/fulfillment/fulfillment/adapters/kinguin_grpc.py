"""kinguin-gateway over gRPC. Its errors become answers here: a refusal and a doubt on paths of their own."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import grpc
import structlog
from chassis.errors import KeyferryError
from chassis.money import Money, money_to_proto
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceStub
from keyferry.type.v1 import money_pb2

from fulfillment.domain.model import ExternalId, KeyId, OrderId, Purchase
from fulfillment.domain.planner import Known
from fulfillment.domain.product import Offer, Product, Tier
from fulfillment.ports.supplier import (
    ArrivedKey,
    Buying,
    CollectAnswer,
    Collected,
    InDoubt,
    NoAnswer,
    NoProduct,
    Paused,
    PlaceAnswer,
    Placed,
    ProductAnswer,
    Refused,
    ReturnAnswer,
    Returned,
    ReturnRefused,
    ReturnUnderWay,
    Unknown,
    Unreadable,
    WithdrawAnswer,
)

logger = structlog.get_logger(__name__)

PLACE_SECONDS = 70.0
COLLECT_SECONDS = 60.0
# It may have to search at the supplier, as placing may.
WITHDRAW_SECONDS = 70.0
# Two reads of the supplier and its answer to the request.
RETURN_SECONDS = 60.0
# A customer of the shop waits at the checkout for this one.
PRODUCT_SECONDS = 2.0
# A page of the other side's own rows.
LIST_SECONDS = 10.0
PAGE_SIZE = 1000
# An order of a thousand keys is some hundred purchases with all their attempts; more pages than this are a mistake.
MOST_PAGES = 20
_NAMESPACE = uuid.UUID("5f1f4f6e-53a0-4e43-8a0e-0f9a3c0d7b21")
# Asking again changes nothing about these. What is unreadable is an error of a kinguin-gateway of before only: today's
# tells it beside the keys that are not.
_NOT_COLLECTED: Mapping[str, CollectAnswer] = {
    "KEY_UNREADABLE": Unreadable(),
    "SOURCE_REF_CONFLICT": Unreadable(),
    "PURCHASE_UNKNOWN": Unknown(),
    "PURCHASE_NOT_PLACED": Unknown(),
}
# Not `completed`: an order that says so with fewer keys than were bought may yet deliver them.
_ENDED = {pb.SUPPLIER_ORDER_STATE_CANCELED, pb.SUPPLIER_ORDER_STATE_REFUNDED}
_UNDER_WAY = {pb.KEY_RETURN_STATE_ASKED, pb.KEY_RETURN_STATE_ACCEPTED}
_GONE_BACK = {pb.KEY_RETURN_STATE_RETURNED, pb.KEY_RETURN_STATE_REFUNDED}


class GrpcSupplier:
    """The supplier's side, as this service sees it. What it tells is asked for each time anew."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = KinguinServiceStub(channel)

    async def place(self, buying: Buying) -> PlaceAnswer:
        """Buy, or learn what became of buying."""
        purchase = buying.purchase
        if purchase.unit_limit is None:
            raise LookupError("a purchase is placed that was not planned")
        request = pb.PlaceOrderRequest(
            **_terms(buying, purchase.unit_limit),
            request_id=_request_id("place", purchase.external_id),
            country_code=buying.country_code,
        )
        try:
            placed = (await self._stub.PlaceOrder(request, timeout=PLACE_SECONDS)).purchase
        except KeyferryError as error:
            return not_placed(error)
        return _placed(placed)

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
        if answer.unreadable_count:
            logger.error(
                "keys cannot be read",
                external_id=purchase.external_id,
                count=answer.unreadable_count,
                source_refs=[key.source_ref for key in answer.unreadable_keys],
            )
        return Collected(
            keys=[ArrivedKey(KeyId(key.key_id), key.content_type, key.held) for key in answer.keys],
            product_name=answer.purchase.product_name,
            more_ready=answer.more_keys_ready,
            # What it has delivered and we have not sealed is not missing: it is collected again.
            ended=answer.purchase.supplier_order_state in _ENDED
            and answer.purchase.sealed_count >= answer.purchase.delivered_count,
            unreadable=answer.unreadable_count,
        )

    async def withdraw(self, buying: Buying) -> WithdrawAnswer:
        """Make sure that it is never bought, or learn that it was."""
        # What our database says was never planned may have been sent before it was restored, on terms that it forgot.
        meant = buying if buying.purchase.is_planned else await self._as_known(buying)
        if meant is None:
            return NoAnswer()
        purchase = meant.purchase
        limit = buying.item.max_unit_price if purchase.unit_limit is None else purchase.unit_limit
        named = _request_id("withdraw", purchase.external_id, purchase.offer_id, str(purchase.quantity), str(limit))
        request = pb.WithdrawPurchaseRequest(**_terms(meant, limit), request_id=named)
        try:
            settled = (await self._stub.WithdrawPurchase(request, timeout=WITHDRAW_SECONDS)).purchase
        except KeyferryError as error:
            if error.reason == "PURCHASE_IN_DOUBT":
                return InDoubt(error.retry_after)
            logger.warning("a purchase was not withdrawn", external_id=purchase.external_id, reason=error.reason)
            return NoAnswer()
        if settled.state == pb.PURCHASE_STATE_PLACED:
            return _placed(settled)
        return Refused(settled.refusal.kind) if settled.state == pb.PURCHASE_STATE_REFUSED else NoAnswer()

    async def give_back(self, purchase: Purchase) -> ReturnAnswer:
        """Ask the supplier to take a purchase's keys back, or learn how far that is."""
        request = pb.ReturnKeysRequest(
            request_id=_request_id("return", purchase.external_id), external_id=purchase.external_id
        )
        try:
            answer = (await self._stub.ReturnKeys(request, timeout=RETURN_SECONDS)).key_return
        except KeyferryError as error:
            logger.warning("keys were not returned", external_id=purchase.external_id, reason=error.reason)
            excluded = error.reason == "RETURN_NOT_ALLOWED"
            return ReturnRefused(error.metadata.get("rule", "")) if excluded else NoAnswer()
        if answer.state in _UNDER_WAY:
            return ReturnUnderWay()
        if answer.state in _GONE_BACK:
            return Returned()
        return ReturnRefused(answer.refusal.kind) if answer.state == pb.KEY_RETURN_STATE_REFUSED else NoAnswer()

    async def read_product(self, product_id: str) -> ProductAnswer:
        """Return what the supplier offers of a product now."""
        request = pb.GetProductRequest(product_id=product_id)
        try:
            product = (await self._stub.GetProduct(request, timeout=PRODUCT_SECONDS)).product
        except KeyferryError as error:
            if error.reason == "PRODUCT_UNKNOWN":
                return NoProduct()
            logger.warning("a product was not read", product_id=product_id, reason=error.reason)
            return NoAnswer()
        return product_from_proto(product)

    async def _as_known(self, buying: Buying) -> Buying | None:
        """Return a purchase on the terms on which the supplier's side knows it, if it does; None: nobody could say."""
        known = await self.known_purchases(buying.purchase.order_id)
        if known is None:
            return None
        own = next((each for _, each in known if each.external_id == buying.purchase.external_id), None)
        if own is None:
            return buying
        purchase = replace(buying.purchase, quantity=own.quantity, offer_id=own.offer_id, unit_limit=own.max_unit_price)
        return replace(buying, purchase=purchase)

    async def known_purchases(self, order_id: OrderId) -> Sequence[tuple[str, Known]] | None:
        """Return each purchase that the supplier's side knows of an order, with its line."""
        request = pb.ListPurchasesRequest(order_id=order_id, page_size=PAGE_SIZE)
        known: list[tuple[str, Known]] = []
        try:
            for _ in range(MOST_PAGES):
                page = await self._stub.ListPurchases(request, timeout=LIST_SECONDS)
                known += [(purchase.item_id, _known(purchase)) for purchase in page.purchases]
                if not page.next_page_token:
                    return known
                request.page_token = page.next_page_token
        except KeyferryError as error:
            logger.warning("what is known of an order was not read", order_id=order_id, reason=error.reason)
            return None
        except LookupError:
            logger.warning("the supplier's side does not tell the limits of what it bought yet", order_id=order_id)
            return None
        logger.error("the supplier's side knows too much of an order", order_id=order_id, purchases=len(known))
        return None


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


def product_from_proto(product: pb.Product) -> Product:
    """Read a product."""
    return Product(
        product_id=product.product_id,
        name=product.name,
        preorder=product.preorder,
        release_time=product.release_time.ToDatetime(UTC) if product.HasField("release_time") else None,
        excluded_countries=frozenset(country.upper() for country in product.excluded_countries),
        offers=[_offer(offer) for offer in product.offers],
        price=_cents(product.price) if product.HasField("price") else None,
        available=product.available_quantity,
        available_text=product.available_text_quantity,
    )


def _offer(offer: pb.Offer) -> Offer:
    return Offer(
        offer_id=offer.offer_id,
        price=_cents(offer.price) if offer.HasField("price") else None,
        available=offer.available_quantity,
        available_text=offer.available_text_quantity,
        tiers=[Tier(tier.min_quantity, _cents(tier.price)) for tier in offer.wholesale_tiers],
    )


def _known(purchase: pb.Purchase) -> Known:
    if not purchase.HasField("max_unit_price"):
        raise LookupError("the limit of a purchase is not told")
    return Known(
        external_id=ExternalId(purchase.external_id),
        quantity=purchase.quantity,
        offer_id=purchase.offer_id,
        max_unit_price=_cents(purchase.max_unit_price),
        refused=purchase.state == pb.PURCHASE_STATE_REFUSED,
    )


def _placed(purchase: pb.Purchase) -> Placed:
    charged = _cents(purchase.charged_amount) if purchase.HasField("charged_amount") else None
    return Placed(purchase.supplier_order_id, purchase.product_name, charged)


def _terms(buying: Buying, limit: int) -> Mapping[str, Any]:
    """Return what placing and withdrawing must say alike: the supplier's side keeps it for ever."""
    purchase, item = buying.purchase, buying.item
    return {
        "external_id": purchase.external_id,
        "order_id": purchase.order_id,
        "item_id": purchase.item_id,
        "product_id": item.product_id,
        "offer_id": purchase.offer_id,
        "quantity": purchase.quantity,
        "max_unit_price": money_to_proto(Money("EUR", limit)),
        # K34: the type of a pre-order's keys is not known before its release.
        "key_type": "" if purchase.is_preorder else item.key_type,
    }


def _cents(money: money_pb2.Money) -> int:
    # Always EUR: the contract says so of every amount that is read here.
    return money.minor_units


def _request_id(what: str, *parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join((what, *parts))))
