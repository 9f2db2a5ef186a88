"""The gRPC face of fulfillment: parse, call, render."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from chassis.errors import FieldViolation, InvalidRequest
from chassis.failpoints import effect
from chassis.identity import caller_identity
from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceServicer
from keyferry.type.v1 import actor_pb2

from fulfillment.answering import once
from fulfillment.convert import (
    cancel_from_proto,
    fulfillment_to_proto,
    order_digest,
    order_from_proto,
    payment_from_proto,
    refund_from_proto,
    state_from_proto,
    wish_from_proto,
)
from fulfillment.domain.model import Order, OrderId
from fulfillment.errors import ProductUnknown
from fulfillment.facts import timestamp
from fulfillment.intake import Intake
from fulfillment.operating import Asked, Operating
from fulfillment.ports.orders import Orders
from fulfillment.ports.supplier import NoProduct
from fulfillment.ports.vault import Vault
from fulfillment.products import Products
from fulfillment.reading import Reading
from fulfillment.watching import Watching

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["FulfillmentService"].full_name
EDGE = "edge"
SHOP = "shop"

Context = grpc.aio.ServicerContext[Any, Any]


class FulfillmentServicer(FulfillmentServiceServicer):
    """Serves `keyferry.fulfillment.v1.FulfillmentService`."""

    def __init__(
        self,
        orders: Orders,
        *,
        intake: Intake,
        reading: Reading,
        watching: Watching,
        operating: Operating,
        products: Products,
        vault: Vault,
    ) -> None:
        self._orders = orders
        self._intake = intake
        self._reading = reading
        self._watching = watching
        self._operating = operating
        self._products = products
        self._vault = vault

    async def SubmitOrder(self, request: pb.SubmitOrderRequest, context: Context) -> pb.SubmitOrderResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Take an order, with or without its payment."""
        faults = Faults()
        request_id = faults.request_id(request.request_id)
        order = order_from_proto(request.order, faults)
        payment = payment_from_proto(request.payment, faults) if request.HasField("payment") else None
        if payment is not None and payment.order_id != order.order_id:
            faults.add("payment.order_id", "must be the order's")
        faults.raise_if_any()
        await self._check_products(order)
        async with self._orders.transaction("submit") as transaction:

            async def submit() -> pb.SubmitOrderResponse:
                found = await self._intake.take_order(transaction, order, order_digest(request.order))
                if payment is not None:
                    found = await self._intake.take_payment(transaction, payment, telling=request_id) or found
                return pb.SubmitOrderResponse(fulfillment=fulfillment_to_proto(found, for_customer=False))

            return await once(transaction, request_id, request, pb.SubmitOrderResponse, submit)

    async def ConfirmPayment(self, request: pb.ConfirmPaymentRequest, context: Context) -> pb.ConfirmPaymentResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Take a payment."""
        faults = Faults()
        request_id = faults.request_id(request.request_id)
        payment = payment_from_proto(request.payment, faults)
        faults.raise_if_any()
        async with self._orders.transaction("pay") as transaction:

            async def pay() -> pb.ConfirmPaymentResponse:
                found = await self._intake.take_payment(transaction, payment, telling=request_id)
                shown = None if found is None else fulfillment_to_proto(found, for_customer=False)
                return pb.ConfirmPaymentResponse(fulfillment=shown)

            return await once(transaction, request_id, request, pb.ConfirmPaymentResponse, pay)

    async def RefundPayment(self, request: pb.RefundPaymentRequest, context: Context) -> pb.RefundPaymentResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Take a refund."""
        faults = Faults()
        request_id = faults.request_id(request.request_id)
        refund = refund_from_proto(request.refund, faults)
        faults.raise_if_any()
        async with self._orders.transaction("refund") as transaction:

            async def take_back() -> pb.RefundPaymentResponse:
                found = await self._intake.take_refund(transaction, refund, telling=request_id)
                shown = None if found is None else fulfillment_to_proto(found, for_customer=False)
                return pb.RefundPaymentResponse(fulfillment=shown)

            return await once(transaction, request_id, request, pb.RefundPaymentResponse, take_back)

    async def CancelFulfillment(  # noqa: N802 # named by gRPC
        self, request: pb.CancelFulfillmentRequest, context: Context
    ) -> pb.CancelFulfillmentResponse:
        """Give up what is outstanding."""
        actor = _actor(request.actor if request.HasField("actor") else None, context)
        cancel = cancel_from_proto(request)
        found = await self._reading.get(cancel.order_id, actor, method="CancelFulfillment")
        known = {line.item.item_id for line in found.lines}
        if unknown := [item_id for item_id in cancel.item_ids if item_id not in known]:
            raise InvalidRequest.of("item_ids", f"{unknown[0]} is no line of the order")
        asked = Asked(actor or actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id=SHOP), cancel.reason)
        async with self._orders.transaction("cancel") as transaction:

            async def call_off() -> pb.CancelFulfillmentResponse:
                after = await self._operating.cancel(transaction, cancel.order_id, cancel.item_ids, asked)
                shown = fulfillment_to_proto(after, for_customer=_is_customer(actor))
                return pb.CancelFulfillmentResponse(fulfillment=shown)

            return await once(transaction, cancel.request_id, request, pb.CancelFulfillmentResponse, call_off)

    async def GetFulfillment(self, request: pb.GetFulfillmentRequest, context: Context) -> pb.GetFulfillmentResponse:  # noqa: N802 # named by gRPC
        """Read one fulfillment."""
        actor = _actor(request.actor if request.HasField("actor") else None, context)
        found = await self._reading.get(_order_id(request.order_id), actor, method="GetFulfillment")
        return pb.GetFulfillmentResponse(fulfillment=fulfillment_to_proto(found, for_customer=_is_customer(actor)))

    async def ListFulfillments(  # noqa: N802 # named by gRPC
        self, request: pb.ListFulfillmentsRequest, context: Context
    ) -> pb.ListFulfillmentsResponse:
        """List fulfillments, newest first."""
        actor = _actor(request.actor if request.HasField("actor") else None, context)
        page = await self._reading.page(
            actor,
            customer_id=request.customer_id,
            state=state_from_proto(request.state),
            size=request.page_size,
            token=request.page_token,
        )
        for_customer = _is_customer(actor)
        return pb.ListFulfillmentsResponse(
            fulfillments=[fulfillment_to_proto(found, for_customer=for_customer) for found in page.fulfillments],
            next_page_token=page.next_token,
        )

    async def WatchFulfillment(  # noqa: N802 # named by gRPC
        self, request: pb.WatchFulfillmentRequest, context: Context
    ) -> AsyncIterator[pb.WatchFulfillmentResponse]:  # named by gRPC
        """Stream the fulfillment whenever it changes."""
        actor = _actor(request.actor if request.HasField("actor") else None, context)
        order_id = _order_id(request.order_id)
        await self._reading.get(order_id, actor, method="WatchFulfillment")
        async for found in self._watching.watch(order_id):
            yield pb.WatchFulfillmentResponse(fulfillment=fulfillment_to_proto(found, for_customer=_is_customer(actor)))

    async def CreateDownloadLink(  # noqa: N802 # named by gRPC
        self,
        request: pb.CreateDownloadLinkRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.CreateDownloadLinkResponse:
        """Give the owner a download link, as vault makes it."""
        wish = wish_from_proto(request)
        await self._reading.openable(wish, request.actor, method="CreateDownloadLink")
        link = await effect("fulfillment.open.link", lambda: self._vault.create_download_link(wish))
        return pb.CreateDownloadLinkResponse(
            url=link.url,
            expire_time=timestamp(link.expire_time),
            content_key_jwe=link.content_key_jwe,
            object_sha256=link.object_sha256,
        )

    async def RevealKey(self, request: pb.RevealKeyRequest, context: Context) -> pb.RevealKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Give the owner an opened key, as vault encrypts it."""
        wish = wish_from_proto(request)
        await self._reading.openable(wish, request.actor, method="RevealKey")
        revealed = await effect("fulfillment.open.reveal", lambda: self._vault.reveal_key(wish))
        return pb.RevealKeyResponse(key_jwe=revealed)

    async def _check_products(self, order: Order) -> None:
        """Refuse products that the supplier does not know; in its outage nobody knows, and the order is accepted."""
        async with self._orders.transaction() as transaction:
            if await transaction.digest(order.order_id) is not None:
                return
        products = list(dict.fromkeys(item.product_id for item in order.items))
        known = dict(
            zip(
                products,
                await asyncio.gather(*(self._products.read(product) for product in products)),
                strict=True,
            )
        )
        faults = [
            FieldViolation(f"order.items[{index}].product_id", "is no product that the supplier sells")
            for index, item in enumerate(order.items)
            if isinstance(known[item.product_id], NoProduct)
        ]
        if faults:
            raise ProductUnknown(f"{faults[0].field}: {faults[0].description}", field_violations=faults)


def _actor(actor: actor_pb2.Actor | None, context: Context) -> actor_pb2.Actor | None:
    if actor is None and caller_identity(context) == EDGE:
        raise InvalidRequest.of("actor", "is required from the edge")
    if actor is not None and (not actor.id or actor.type == actor_pb2.ACTOR_TYPE_UNSPECIFIED):
        raise InvalidRequest.of("actor", "must have a type and an id")
    return actor


def _is_customer(actor: actor_pb2.Actor | None) -> bool:
    return actor is not None and actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER


def _order_id(value: str) -> OrderId:
    faults = Faults()
    faults.identifier("order_id", value)
    faults.raise_if_any()
    return OrderId(value)
