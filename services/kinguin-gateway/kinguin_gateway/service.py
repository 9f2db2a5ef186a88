"""The gRPC servicer: convert, one use case, render."""

from typing import TYPE_CHECKING, Any

from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.kinguin.v1 import kinguin_service_pb2_grpc as rpc

from kinguin_gateway.buying import Buyer
from kinguin_gateway.collecting import Collector
from kinguin_gateway.convert import (
    check_to_proto,
    collect_from_proto,
    collection_to_proto,
    external_id_from_proto,
    intent_from_proto,
    product_id_from_proto,
    product_to_proto,
    purchase_to_proto,
)
from kinguin_gateway.reading import Reader

if TYPE_CHECKING:
    import grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["KinguinService"].full_name


class KinguinServicer(rpc.KinguinServiceServicer):
    """Serves keyferry.kinguin.v1.KinguinService."""

    def __init__(self, buyer: Buyer, collector: Collector, reader: Reader) -> None:
        self._buyer = buyer
        self._collector = collector
        self._reader = reader

    async def PlaceOrder(  # noqa: N802 # the name in the contract
        self,
        request: pb.PlaceOrderRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.PlaceOrderResponse:
        """Buy at most once."""
        intent, request_id = intent_from_proto(request)
        return pb.PlaceOrderResponse(purchase=purchase_to_proto(await self._buyer.place(intent, request_id)))

    async def GetOrder(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetOrderRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetOrderResponse:
        """Read a purchase."""
        purchase = await self._reader.purchase(external_id_from_proto(request))
        return pb.GetOrderResponse(purchase=purchase_to_proto(purchase))

    async def CollectKeys(  # noqa: N802 # the name in the contract
        self,
        request: pb.CollectKeysRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.CollectKeysResponse:
        """Seal what was delivered."""
        collect = collect_from_proto(request)
        collection = await self._collector.collect(
            collect.external_id,
            customer_id=collect.customer_id,
            request_id=collect.request_id,
            digest=collect.digest,
        )
        return collection_to_proto(collection)

    async def GetProduct(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetProductRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetProductResponse:
        """Read a product."""
        return pb.GetProductResponse(
            product=product_to_proto(await self._reader.product(product_id_from_proto(request)))
        )

    async def CheckSupplier(  # noqa: N802 # the name in the contract
        self,
        request: pb.CheckSupplierRequest,  # noqa: ARG002 # it has no fields
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.CheckSupplierResponse:
        """Ask how the supplier is."""
        return check_to_proto(await self._reader.check())
