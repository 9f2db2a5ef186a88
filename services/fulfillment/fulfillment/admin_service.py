"""The gRPC face of fulfillment for support staff: parse, call, render."""

from collections.abc import Awaitable, Callable

from chassis.clock import Clock
from chassis.dead_letters import DeadLetterDesk
from chassis.validation import Faults
from google.protobuf.message import Message
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1.fulfillment_admin_service_pb2_grpc import FulfillmentAdminServiceServicer

from fulfillment.answering import earlier, once
from fulfillment.consumer import Within
from fulfillment.convert import fulfillment_to_proto
from fulfillment.convert_admin import (
    assign_from_proto,
    close_from_proto,
    delivery_from_proto,
    record_to_proto,
    replace_from_proto,
    resend_from_proto,
    retries_from_proto,
    retry_from_proto,
)
from fulfillment.dead_letter_service import DeadLetterMethods
from fulfillment.domain.model import Fulfillment, OrderId
from fulfillment.erasing import Erasing
from fulfillment.errors import KeyNotNeeded
from fulfillment.keeping_service import KeepingMethods
from fulfillment.matching import Matching
from fulfillment.operating import Operating
from fulfillment.payments import PaymentDesk
from fulfillment.ports.keeping import KeyKeeper
from fulfillment.ports.orders import Orders, OrderTransaction, R
from fulfillment.ports.reconciliation import Reports
from fulfillment.ports.vault import Vault
from fulfillment.report_service import ReportMethods
from fulfillment.retrying import Retrying
from fulfillment.service import Context

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["FulfillmentAdminService"].full_name


class FulfillmentAdminServicer(ReportMethods, DeadLetterMethods, KeepingMethods, FulfillmentAdminServiceServicer):
    """Serves `keyferry.fulfillment.v1.FulfillmentAdminService`."""

    def __init__(
        self,
        orders: Orders,
        *,
        operating: Operating,
        retrying: Retrying,
        payments: PaymentDesk,
        matching: Matching,
        reports: Reports,
        clock: Clock,
        dead_letters: DeadLetterDesk,
        within: Within,
        vault: Vault,
        keeper: KeyKeeper,
        erasing: Erasing,
    ) -> None:
        self.serve_reports(reports, clock=clock)
        self._orders = orders
        self._desk = dead_letters
        self._within = within
        self._operating = operating
        self._retrying = retrying
        self._payments = payments
        self._matching = matching
        self._vault = vault
        self._keeper = keeper
        self._erasing = erasing

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: Context) -> pb.ListPaymentsResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """List payments, the one heard of last first."""
        faults = Faults()
        if request.order_id:
            faults.identifier("order_id", request.order_id)
        faults.raise_if_any()
        page = await self._payments.page(
            order_id=OrderId(request.order_id) if request.order_id else None,
            unmatched=request.unmatched,
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListPaymentsResponse(
            payments=[record_to_proto(record) for record in page.records], next_page_token=page.next_token
        )

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.GetPaymentResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Read one payment."""
        faults = Faults()
        faults.require("provider", request.provider, longest=64)
        faults.require("payment_id", request.payment_id, longest=128)
        faults.raise_if_any()
        return pb.GetPaymentResponse(
            payment=record_to_proto(await self._payments.get(request.provider, request.payment_id))
        )

    async def RetryFulfillment(  # noqa: N802 # named by gRPC
        self,
        request: pb.RetryFulfillmentRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.RetryFulfillmentResponse:
        """Let what needs attention go on."""
        wish, item_id = retry_from_proto(request)

        async def retry(transaction: OrderTransaction) -> pb.RetryFulfillmentResponse:
            after = await self._operating.retry(transaction, wish.order_id, item_id, wish.asked)
            return pb.RetryFulfillmentResponse(fulfillment=_shown(after))

        return await self._once(wish.request_id, request, pb.RetryFulfillmentResponse, retry)

    async def RetryFulfillments(  # noqa: N802 # named by gRPC
        self,
        request: pb.RetryFulfillmentsRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.RetryFulfillmentsResponse:
        """Let what needs attention go on in many orders."""
        request_id, trouble, asked = retries_from_proto(request)

        async def retry(transaction: OrderTransaction) -> pb.RetryFulfillmentsResponse:
            size, token = request.page_size, request.page_token
            page = await self._retrying.retry(transaction, trouble, asked, size=size, token=token)
            return pb.RetryFulfillmentsResponse(
                retried_count=page.retried,
                refused=[
                    pb.RefusedRetry(order_id=r.order_id, reason=r.reason, message=r.message) for r in page.refused
                ],
                next_page_token=page.next_token,
            )

        return await self._once(request_id, request, pb.RetryFulfillmentsResponse, retry)

    async def AssignPayment(self, request: pb.AssignPaymentRequest, context: Context) -> pb.AssignPaymentResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Give a payment to the order that it was meant for."""
        request_id, name, target, asked = assign_from_proto(request)

        async def assign(transaction: OrderTransaction) -> pb.AssignPaymentResponse:
            record, after = await self._matching.assign(transaction, name, target, asked)
            return pb.AssignPaymentResponse(payment=record_to_proto(record), fulfillment=_shown(after))

        return await self._once(request_id, request, pb.AssignPaymentResponse, assign)

    async def ClosePayment(self, request: pb.ClosePaymentRequest, context: Context) -> pb.ClosePaymentResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """End a payment without an order."""
        request_id, name, closure, asked = close_from_proto(request)

        async def close(transaction: OrderTransaction) -> pb.ClosePaymentResponse:
            record = await self._matching.close(transaction, name, closure, asked)
            return pb.ClosePaymentResponse(payment=record_to_proto(record))

        return await self._once(request_id, request, pb.ClosePaymentResponse, close)

    async def DeliverKeyManually(  # noqa: N802 # named by gRPC
        self,
        request: pb.DeliverKeyManuallyRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.DeliverKeyManuallyResponse:
        """Deliver an uploaded key."""
        wish, delivery = delivery_from_proto(request)
        known = await self._earlier(wish.request_id, request, pb.DeliverKeyManuallyResponse)
        if known is not None:
            return known
        key = await self._operating.seal(delivery)

        async def deliver(transaction: OrderTransaction) -> pb.DeliverKeyManuallyResponse:
            after = await self._operating.deliver(transaction, wish.order_id, key, wish.asked)
            return pb.DeliverKeyManuallyResponse(key_id=key.key_id, fulfillment=_shown(after))

        try:
            return await self._once(wish.request_id, request, pb.DeliverKeyManuallyResponse, deliver)
        except KeyNotNeeded:
            await self._operating.destroy(wish.order_id, key.key_id)
            raise

    async def GetUploadKey(self, request: pb.GetUploadKeyRequest, context: Context) -> pb.GetUploadKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Give vault's upload key."""
        return pb.GetUploadKeyResponse(upload_jwk=await self._vault.upload_jwk())

    async def ReplaceKey(self, request: pb.ReplaceKeyRequest, context: Context) -> pb.ReplaceKeyResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Buy another key in place of one that does not work."""
        wish, key_id = replace_from_proto(request)
        known = await self._earlier(wish.request_id, request, pb.ReplaceKeyResponse)
        if known is not None:
            return known
        answer = await self._operating.revoke_for_replacement(wish.order_id, key_id)

        async def replace(transaction: OrderTransaction) -> pb.ReplaceKeyResponse:
            after = await self._operating.replace_key(transaction, wish.order_id, key_id, answer, wish.asked)
            return pb.ReplaceKeyResponse(fulfillment=_shown(after))

        return await self._once(wish.request_id, request, pb.ReplaceKeyResponse, replace)

    async def ResendDeliveryEmail(  # noqa: N802 # named by gRPC
        self,
        request: pb.ResendDeliveryEmailRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.ResendDeliveryEmailResponse:
        """Send an order's mail again."""
        wish = resend_from_proto(request)

        async def resend(transaction: OrderTransaction) -> pb.ResendDeliveryEmailResponse:
            await self._operating.resend_mail(transaction, wish.order_id, wish.asked)
            return pb.ResendDeliveryEmailResponse()

        return await self._once(wish.request_id, request, pb.ResendDeliveryEmailResponse, resend)

    async def _earlier(self, request_id: str, request: Message, response_class: type[R]) -> R | None:
        async with self._orders.transaction() as transaction:
            return await earlier(transaction, request_id, request, response_class)

    async def _once(
        self,
        request_id: str,
        request: Message,
        response_class: type[R],
        act: Callable[[OrderTransaction], Awaitable[R]],
    ) -> R:
        """Act in a transaction that also keeps the answer; a repeat is given that."""
        async with self._orders.transaction("operate") as transaction:
            return await once(transaction, request_id, request, response_class, lambda: act(transaction))


def _shown(found: Fulfillment) -> fulfillment_pb2.Fulfillment:
    return fulfillment_to_proto(found, for_customer=False)
