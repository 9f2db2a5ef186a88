"""The rows of payments, of refunds, and of what the shop is asked to pay back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from fulfillment.domain.model import Money, OrderId, Payment, Refund, RefundRequest
from fulfillment.ports.payments import Closure, PaymentRecord

from tests.simulation.shapes import RefundRow
from tests.simulation.tables import Work


class MoneyRows(Work):
    """One transaction, in the words of `fulfillment.ports.orders.MoneyRows`."""

    async def add_payment(self, payment: Payment, *, now: datetime) -> Payment | None:  # noqa: ARG002 # the port's
        await self.pause()
        await self.lock(("money",))
        known: Payment | None = self.get("payments", (payment.provider, payment.payment_id))
        if known is None:
            self.put("payments", (payment.provider, payment.payment_id), payment)
        return known

    async def add_refund(self, refund: Refund, *, now: datetime) -> Refund | None:  # noqa: ARG002 # the port's
        await self.pause()
        await self.lock(("money",))
        known = self.get("refunds", (refund.provider, refund.refund_id))
        if known is None:
            self.put("refunds", (refund.provider, refund.refund_id), RefundRow(refund))
            return None
        found: Refund = known.refund
        return found

    async def order_of_payment(self, provider: str, payment_id: str) -> OrderId | None:
        payment = self.get("payments", (provider, payment_id))
        return None if payment is None or payment.is_closed else payment.order_id

    async def lock_payment(self, provider: str, payment_id: str) -> PaymentRecord | None:
        await self.lock(("money",))
        payment = self.get("payments", (provider, payment_id))
        if payment is None:
            return None
        refunds = [row.refund for row in self._refunds_of([payment])]
        is_matched = self.get("orders", payment.order_id) is not None
        # When it came, and what was written of its end, is nothing that a history asks for.
        close_time = payment.confirm_time if payment.is_closed else None
        return PaymentRecord(payment, payment.confirm_time, is_matched, refunds, close_time)

    async def assign_payment(self, provider: str, payment_id: str, order_id: OrderId) -> None:
        payment: Payment = self.get("payments", (provider, payment_id))
        assigned = replace(payment, order_id=order_id, told_order_id=payment.first_told)
        self.put("payments", (provider, payment_id), assigned)

    async def close_payment(
        self,
        provider: str,
        payment_id: str,
        closure: Closure,  # noqa: ARG002 # the port's
        note: str,  # noqa: ARG002 # the port's
        *,
        now: datetime,  # noqa: ARG002 # the port's
    ) -> None:
        payment: Payment = self.get("payments", (provider, payment_id))
        self.put("payments", (provider, payment_id), replace(payment, is_closed=True))

    async def money(self, order_id: OrderId) -> Money:
        payments = self._payments_of(order_id)
        return Money(payments, [row.refund for row in self._refunds_of(payments)])

    def _payments_of(self, order_id: OrderId) -> list[Payment]:
        found = [each for each in self.scan("payments") if each.order_id == order_id and not each.is_closed]
        return sorted(found, key=lambda each: (each.provider, each.payment_id)) if len(found) > 1 else found

    def _refunds_of(self, payments: Sequence[Payment]) -> list[RefundRow]:
        names = {(each.provider, each.payment_id) for each in payments}
        found = [row for row in self.scan("refunds") if (row.refund.provider, row.refund.payment_id) in names]
        found.sort(key=lambda row: (row.refund.provider, row.refund.payment_id, row.refund.refund_id))
        return found

    async def take_pending_refunds(self, order_id: OrderId) -> Sequence[Refund]:
        pending = [row.refund for row in self._refunds_of(self._payments_of(order_id)) if not row.applied]
        for refund in pending:
            self.put("refunds", (refund.provider, refund.refund_id), RefundRow(refund, applied=True))
        return pending

    async def add_refund_request(self, request: RefundRequest, *, now: datetime) -> bool:  # noqa: ARG002 # the port's
        await self.lock(("requests", request.request_id))
        if self.get("requests", request.request_id) is not None:
            return False
        self.put("requests", request.request_id, request)
        return True

    async def refund_requests(self, order_id: OrderId) -> Sequence[RefundRequest]:
        return [each for each in self.scan("requests") if each.order_id == order_id]

    async def answer_refund_requests(self, order_id: OrderId, request_ids: Sequence[str]) -> Sequence[RefundRequest]:
        answered = []
        for request in await self.refund_requests(order_id) if request_ids else ():
            request_id = request.request_id
            if request_id in request_ids and not request.is_answered:
                answered.append(replace(request, is_answered=True))
                self.put("requests", request_id, answered[-1])
        return answered
