"""Payments, refunds, and what the shop is asked to pay back."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from fulfillment.adapters.connection import OnConnection
from fulfillment.adapters.payments import read_payment
from fulfillment.adapters.reading import payment_of, refund_of, refund_request_of
from fulfillment.adapters.tables import ORDER, PAYMENT, REFUND, REFUND_REQUEST
from fulfillment.domain.model import Amount, Money, OrderId, Payment, Refund, RefundRequest
from fulfillment.ports.payments import Closure, PaymentRecord

_refund_columns = (
    REFUND.c.refund_id,
    REFUND.c.currency.label("refund_currency"),
    REFUND.c.minor.label("refund_minor"),
    REFUND.c.refund_time,
    REFUND.c.item_ids,
    REFUND.c.request_ids,
    REFUND.c.is_chargeback,
)
_is_of_payment = and_(REFUND.c.provider == PAYMENT.c.provider, REFUND.c.payment_id == PAYMENT.c.payment_id)


def _named(provider: str, payment_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return PAYMENT.c.provider == provider, PAYMENT.c.payment_id == payment_id


class PostgresMoneyRows(OnConnection):
    """The rows of payments, refunds and refund requests."""

    async def add_payment(self, payment: Payment, *, now: datetime) -> Payment | None:
        """Add a payment; its order, or a refund of it, that arrives at the same moment waits."""
        await self._hold_order(payment.order_id)
        await self._hold_payment(payment.provider, payment.payment_id)
        statement = insert(PAYMENT).values(
            provider=payment.provider,
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            currency=payment.amount.currency_code,
            minor=payment.amount.minor_units,
            confirm_time=payment.confirm_time,
            create_time=now,
            is_matched=select(exists().where(ORDER.c.order_id == literal(payment.order_id))).scalar_subquery(),
        )
        added = await self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["provider", "payment_id"]).returning(PAYMENT.c.payment_id)
        )
        if added.first() is not None:
            return None
        known = select(PAYMENT).where(
            PAYMENT.c.provider == payment.provider, PAYMENT.c.payment_id == payment.payment_id
        )
        return payment_of((await self._connection.execute(known)).one())

    async def add_refund(self, refund: Refund, *, now: datetime) -> Refund | None:
        """Add a refund; its payment, or the order of that, that arrives at the same moment waits."""
        await self._hold_payment(refund.provider, refund.payment_id)
        statement = insert(REFUND).values(
            provider=refund.provider,
            refund_id=refund.refund_id,
            payment_id=refund.payment_id,
            currency=refund.amount.currency_code,
            minor=refund.amount.minor_units,
            refund_time=refund.refund_time,
            item_ids=list(refund.item_ids),
            request_ids=list(refund.request_ids),
            is_chargeback=refund.is_chargeback,
            create_time=now,
        )
        added = await self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["provider", "refund_id"]).returning(REFUND.c.refund_id)
        )
        if added.first() is not None:
            return None
        known = select(REFUND).where(REFUND.c.provider == refund.provider, REFUND.c.refund_id == refund.refund_id)
        return refund_of((await self._connection.execute(known)).one())

    async def order_of_payment(self, provider: str, payment_id: str) -> OrderId | None:
        """Return the order that a payment is for, unless it was closed."""
        statement = select(PAYMENT.c.order_id).where(*_named(provider, payment_id), PAYMENT.c.close_time.is_(None))
        order_id = (await self._connection.execute(statement)).scalar_one_or_none()
        return None if order_id is None else OrderId(order_id)

    async def lock_payment(self, provider: str, payment_id: str) -> PaymentRecord | None:
        """Return a payment, held until the transaction ends."""
        await self._hold_payment(provider, payment_id)
        return await read_payment(self._connection, provider, payment_id)

    async def assign_payment(self, provider: str, payment_id: str, order_id: OrderId) -> None:
        """Give a payment to an order."""
        told = func.coalesce(PAYMENT.c.told_order_id, PAYMENT.c.order_id)
        await self._connection.execute(
            update(PAYMENT)
            .where(*_named(provider, payment_id))
            .values(order_id=order_id, told_order_id=told, is_matched=True)
        )

    async def close_payment(
        self, provider: str, payment_id: str, closure: Closure, note: str, *, now: datetime
    ) -> None:
        """End a payment."""
        await self._connection.execute(
            update(PAYMENT)
            .where(*_named(provider, payment_id))
            .values(close_time=now, closure=closure.value, close_note=note)
        )

    async def money(self, order_id: OrderId) -> Money:
        """Return an order's payments, and the refunds of those payments: one query, so that both are of one moment."""
        statement = (
            select(PAYMENT, *_refund_columns)
            .outerjoin(REFUND, _is_of_payment)
            .where(PAYMENT.c.order_id == order_id, PAYMENT.c.close_time.is_(None))
            .order_by(PAYMENT.c.provider, PAYMENT.c.payment_id, REFUND.c.refund_id)
        )
        rows = (await self._connection.execute(statement)).all()
        # A payment with several refunds is in several rows.
        payments = {(row.provider, row.payment_id): payment_of(row) for row in rows}
        refunds = [
            refund_of(row, Amount(row.refund_currency, row.refund_minor)) for row in rows if row.refund_id is not None
        ]
        return Money(list(payments.values()), refunds)

    async def take_pending_refunds(self, order_id: OrderId) -> Sequence[Refund]:
        """Return refunds that were not applied yet, and note that they are."""
        taken = await self._connection.execute(
            update(REFUND)
            .where(
                _is_of_payment,
                PAYMENT.c.order_id == order_id,
                PAYMENT.c.close_time.is_(None),
                REFUND.c.apply_time.is_(None),
            )
            .values(apply_time=func.now())
            .returning(REFUND)
        )
        return sorted(
            (refund_of(row) for row in taken), key=lambda refund: (refund.provider, refund.payment_id, refund.refund_id)
        )

    async def add_refund_request(self, request: RefundRequest, *, now: datetime) -> bool:
        """Add a request."""
        statement = insert(REFUND_REQUEST).values(
            request_id=request.request_id,
            order_id=request.order_id,
            item_id=request.item_id,
            external_id=request.external_id,
            quantity=request.quantity,
            currency=request.amount.currency_code,
            minor=request.amount.minor_units,
            reason=request.reason.value,
            answer_time=now if request.is_answered else None,
            create_time=now,
        )
        added = await self._connection.execute(
            statement.on_conflict_do_nothing(index_elements=["request_id"]).returning(REFUND_REQUEST.c.request_id)
        )
        return added.first() is not None

    async def refund_requests(self, order_id: OrderId) -> Sequence[RefundRequest]:
        """Return what the shop was asked to pay back, in the order of asking."""
        statement = (
            select(REFUND_REQUEST).where(REFUND_REQUEST.c.order_id == order_id).order_by(REFUND_REQUEST.c.position)
        )
        return [refund_request_of(row) for row in await self._connection.execute(statement)]

    async def answer_refund_requests(self, order_id: OrderId, request_ids: Sequence[str]) -> Sequence[RefundRequest]:
        """Note which requests were answered, and return those that were not before."""
        if not request_ids:
            return ()
        answered = await self._connection.execute(
            update(REFUND_REQUEST)
            .where(
                REFUND_REQUEST.c.order_id == order_id,
                REFUND_REQUEST.c.request_id.in_(request_ids),
                REFUND_REQUEST.c.answer_time.is_(None),
            )
            .values(answer_time=func.now())
            .returning(REFUND_REQUEST)
        )
        return [refund_request_of(row) for row in sorted(answered, key=lambda row: row.position)]
