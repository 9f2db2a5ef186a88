"""The part of FulfillmentAdminService that tells what was done with keys, and forgets customers."""

from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb

from fulfillment.answering import earlier, once
from fulfillment.convert_keeping import erased_to_proto, erasure_from_proto, log_from_proto, log_to_proto
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.erasing import Erasing
from fulfillment.errors import KeyNotFound, OrderNotFound
from fulfillment.ports.keeping import DeliveryLog, KeyKeeper
from fulfillment.ports.orders import Orders
from fulfillment.service import Context


class KeepingMethods:
    """Serves delivery logs and erasures."""

    _orders: Orders
    _keeper: KeyKeeper
    _erasing: Erasing

    async def GetDeliveryLog(self, request: pb.GetDeliveryLogRequest, context: Context) -> pb.GetDeliveryLogResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Read what was done with a key of an order."""
        return log_to_proto(await self._delivery_log(*log_from_proto(request)))

    async def _delivery_log(self, order_id: OrderId, key_id: KeyId) -> DeliveryLog:
        """Raises OrderNotFound and KeyNotFound, and what vault raises."""
        async with self._orders.transaction() as transaction:
            found = await transaction.load(order_id)
        if found is None:
            raise OrderNotFound("there is no such order")
        if all(key.key_id != key_id for line in found.lines for key in line.keys):
            raise KeyNotFound("the order has no such key")
        log = await self._keeper.delivery_log(key_id)
        if log.order_id != order_id:
            raise KeyNotFound("the order has no such key")
        return log

    async def EraseCustomer(self, request: pb.EraseCustomerRequest, context: Context) -> pb.EraseCustomerResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Forget a customer."""
        wish = erasure_from_proto(request)
        async with self._orders.transaction() as transaction:
            known = await earlier(transaction, wish.request_id, request, pb.EraseCustomerResponse)
        if known is not None:
            return known
        erased = await self._erasing.erase(wish)
        async with self._orders.transaction("erase") as transaction:

            async def tell() -> pb.EraseCustomerResponse:
                await self._erasing.finish(transaction, wish, erased)
                return erased_to_proto(wish, erased)

            return await once(transaction, wish.request_id, request, pb.EraseCustomerResponse, tell)
