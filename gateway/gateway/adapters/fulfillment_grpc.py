"""The customers' orders, over gRPC to fulfillment."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import grpc
from chassis.failpoints import effect
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as messages
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub

from gateway.convert import customer_to_proto, download_link_from_proto, order_from_proto
from gateway.domain.order import Customer, DownloadLink, KeyRequest, Order, OrderPage

if TYPE_CHECKING:
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub

READ_SECONDS = 5.0
# Vault writes to audit first and, to reveal, reads the object store.
OPEN_SECONDS = 10.0


class GrpcFulfillments:
    """Implements `Fulfillments`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: FulfillmentServiceAsyncStub = FulfillmentServiceStub(channel)

    async def get(self, order_id: str, customer: Customer) -> Order:
        """Return one order."""
        request = messages.GetFulfillmentRequest(order_id=order_id, actor=customer_to_proto(customer))
        return order_from_proto((await self._stub.GetFulfillment(request, timeout=READ_SECONDS)).fulfillment)

    async def list(self, customer: Customer, *, page_size: int, page_token: str) -> OrderPage:
        """Return some orders of the customer, newest first."""
        request = messages.ListFulfillmentsRequest(
            actor=customer_to_proto(customer), page_size=page_size, page_token=page_token
        )
        response = await self._stub.ListFulfillments(request, timeout=READ_SECONDS)
        return OrderPage(tuple(order_from_proto(each) for each in response.fulfillments), response.next_page_token)

    async def watch(self, order_id: str, customer: Customer) -> AsyncGenerator[Order, None]:
        """Yield the order now and whenever it changes."""
        request = messages.WatchFulfillmentRequest(order_id=order_id, actor=customer_to_proto(customer))
        call = self._stub.WatchFulfillment(request)
        try:
            async for response in call:
                yield order_from_proto(response.fulfillment)
        finally:
            call.cancel()

    async def create_download_link(self, request: KeyRequest) -> DownloadLink:
        """Return a link to one sealed key and what opens it."""
        message = messages.CreateDownloadLinkRequest(
            request_id=request.request_id,
            order_id=request.order_id,
            key_id=request.key_id,
            actor=customer_to_proto(request.customer),
            recipient_jwk=request.recipient_jwk,
        )
        response = await effect("edge.open.link", lambda: self._stub.CreateDownloadLink(message, timeout=OPEN_SECONDS))
        return download_link_from_proto(response)

    async def reveal_key(self, request: KeyRequest) -> str:
        """Return one key as a JWE to the one-time public key."""
        message = messages.RevealKeyRequest(
            request_id=request.request_id,
            order_id=request.order_id,
            key_id=request.key_id,
            actor=customer_to_proto(request.customer),
            recipient_jwk=request.recipient_jwk,
        )
        response = await effect("edge.open.reveal", lambda: self._stub.RevealKey(message, timeout=OPEN_SECONDS))
        return response.key_jwe
