"""The gRPC servicer: convert, one use case, render."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from chassis.paging import page_size
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.kinguin.v1 import kinguin_service_pb2_grpc as rpc

from kinguin_gateway.accounting import Accountant
from kinguin_gateway.buying import Buyer
from kinguin_gateway.collecting import Collector
from kinguin_gateway.convert import (
    collect_from_proto,
    collection_to_proto,
    external_id_from_proto,
    place_from_proto,
    purchase_to_proto,
    withdraw_from_proto,
)
from kinguin_gateway.convert_account import (
    balance_to_proto,
    check_to_proto,
    top_up_filter_from_proto,
    top_up_from_proto,
    top_up_page_to_proto,
)
from kinguin_gateway.convert_products import (
    order_filter_from_proto,
    order_to_proto,
    product_id_from_proto,
    product_to_proto,
)
from kinguin_gateway.convert_returns import (
    key_return_to_proto,
    listed_to_proto,
    page_to_proto,
    purchase_filter_from_proto,
    return_from_proto,
)
from kinguin_gateway.convert_switch import status_to_proto, switch_order_from_proto
from kinguin_gateway.convert_webhooks import (
    replay_from_proto,
    webhook_filter_from_proto,
    webhook_page_to_proto,
    webhook_to_proto,
)
from kinguin_gateway.listing import Lister
from kinguin_gateway.ports.switch import Switch
from kinguin_gateway.reading import Reader
from kinguin_gateway.returning import Returner
from kinguin_gateway.webhooks import WebhookDesk
from kinguin_gateway.withdrawing import Withdrawer

if TYPE_CHECKING:
    import grpc

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["KinguinService"].full_name


class KinguinServicer(rpc.KinguinServiceServicer):
    """Serves keyferry.kinguin.v1.KinguinService."""

    def __init__(
        self,
        *,
        buyer: Buyer,
        withdrawer: Withdrawer,
        collector: Collector,
        reader: Reader,
        lister: Lister,
        returner: Returner,
        switch: Switch,
        accountant: Accountant,
        webhooks: WebhookDesk,
    ) -> None:
        self._buyer = buyer
        self._withdrawer = withdrawer
        self._collector = collector
        self._reader = reader
        self._lister = lister
        self._returner = returner
        self._switch = switch
        self._accountant = accountant
        self._webhooks = webhooks

    async def PlaceOrder(  # noqa: N802 # the name in the contract
        self,
        request: pb.PlaceOrderRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.PlaceOrderResponse:
        """Buy at most once."""
        place = place_from_proto(request)
        purchase = await self._buyer.place(place.intent, place.request_id, place.country_code)
        return pb.PlaceOrderResponse(purchase=purchase_to_proto(purchase))

    async def WithdrawPurchase(  # noqa: N802 # the name in the contract
        self,
        request: pb.WithdrawPurchaseRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.WithdrawPurchaseResponse:
        """Never buy."""
        purchase = await self._withdrawer.withdraw(*withdraw_from_proto(request))
        return pb.WithdrawPurchaseResponse(purchase=purchase_to_proto(purchase))

    async def GetOrder(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetOrderRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetOrderResponse:
        """Read a purchase."""
        purchase = await self._reader.purchase(external_id_from_proto(request))
        (listed,) = await self._lister.complete([purchase])
        return pb.GetOrderResponse(purchase=listed_to_proto(listed))

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

    async def ListPurchases(  # noqa: N802 # the name in the contract
        self,
        request: pb.ListPurchasesRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ListPurchasesResponse:
        """List one page of purchases."""
        wanted = purchase_filter_from_proto(request)
        page = await self._lister.page(wanted, size=page_size(request.page_size), token=request.page_token)
        return page_to_proto(page)

    async def ReturnKeys(  # noqa: N802 # the name in the contract
        self,
        request: pb.ReturnKeysRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ReturnKeysResponse:
        """Give keys back, or tell how far that is."""
        key_return = await self._returner.give_back(*return_from_proto(request))
        return pb.ReturnKeysResponse(key_return=key_return_to_proto(key_return))

    async def GetProduct(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetProductRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetProductResponse:
        """Read a product."""
        return pb.GetProductResponse(
            product=product_to_proto(await self._reader.product(product_id_from_proto(request)))
        )

    async def SearchOrders(  # noqa: N802 # the name in the contract
        self,
        request: pb.SearchOrdersRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> AsyncIterator[pb.SearchOrdersResponse]:
        """Stream the supplier's own orders."""
        async for order in self._reader.orders(order_filter_from_proto(request)):
            yield pb.SearchOrdersResponse(order=order_to_proto(order))

    async def GetBalance(  # noqa: N802 # the name in the contract
        self,
        request: pb.GetBalanceRequest,  # noqa: ARG002 # it has no fields
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.GetBalanceResponse:
        """Read the balance."""
        return balance_to_proto(await self._accountant.balance())

    async def RecordTopUp(  # noqa: N802 # the name in the contract
        self,
        request: pb.RecordTopUpRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.RecordTopUpResponse:
        """Note a top-up."""
        top_up_id = await self._accountant.record_top_up(top_up_from_proto(request))
        return pb.RecordTopUpResponse(top_up_id=top_up_id)

    async def ListTopUps(  # noqa: N802 # the name in the contract
        self,
        request: pb.ListTopUpsRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ListTopUpsResponse:
        """List one page of top-ups."""
        wanted = top_up_filter_from_proto(request)
        page = await self._accountant.top_ups(wanted, size=page_size(request.page_size), token=request.page_token)
        return top_up_page_to_proto(page)

    async def ListWebhooks(  # noqa: N802 # the name in the contract
        self,
        request: pb.ListWebhooksRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ListWebhooksResponse:
        """List one page of webhooks."""
        wanted = webhook_filter_from_proto(request)
        page = await self._webhooks.page(wanted, size=page_size(request.page_size), token=request.page_token)
        return webhook_page_to_proto(page)

    async def ReplayWebhook(  # noqa: N802 # the name in the contract
        self,
        request: pb.ReplayWebhookRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ReplayWebhookResponse:
        """Take a webhook again."""
        webhook = await self._webhooks.replay(replay_from_proto(request))
        return pb.ReplayWebhookResponse(webhook=webhook_to_proto(webhook))

    async def PauseBuying(  # noqa: N802 # the name in the contract
        self,
        request: pb.PauseBuyingRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.PauseBuyingResponse:
        """Stop buying."""
        return pb.PauseBuyingResponse(
            buying=status_to_proto(await self._switch.pause(switch_order_from_proto(request)))
        )

    async def ResumeBuying(  # noqa: N802 # the name in the contract
        self,
        request: pb.ResumeBuyingRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.ResumeBuyingResponse:
        """Buy again."""
        status = await self._switch.resume(switch_order_from_proto(request))
        return pb.ResumeBuyingResponse(buying=status_to_proto(status))

    async def CheckSupplier(  # noqa: N802 # the name in the contract
        self,
        request: pb.CheckSupplierRequest,  # noqa: ARG002 # it has no fields
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002 # part of every servicer's signature
    ) -> pb.CheckSupplierResponse:
        """Ask how the supplier is."""
        return check_to_proto(await self._reader.check())
