"""Payments and refunds against a total: whether to buy, to wait, or to ask a human."""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from fulfillment.domain.model import Amount, Fulfillment, Money, Payment


class PaymentVerdict(Enum):
    """What the payments of an order come to."""

    SHORT = auto()
    """Less than the total so far."""
    PAID = auto()
    """The total."""
    MISMATCH = auto()
    """More than the total, or another currency: a human decides."""
    CUT = auto()
    """Less than the total, because a part went back: what is bought for the rest is not for us to guess."""
    GIVEN_BACK = auto()
    """There were payments, and nothing is left of them."""


@dataclass(frozen=True, slots=True)
class Paid:
    """A verdict, and what was paid and given back: in the order's currency, or in another where only that came in."""

    verdict: PaymentVerdict
    amount: Amount | None
    refunded: Amount | None

    @property
    def reaches_total(self) -> bool:
        """Whether what is left of the payments is enough."""
        return self.verdict is PaymentVerdict.PAID


class Misfit(StrEnum):
    """Why a payment cannot be given to an order."""

    OTHER_CUSTOMER = "OTHER_CUSTOMER"
    """The order is not whose it was said to be."""
    ORDER_OVER = "ORDER_OVER"
    """The order was canceled."""
    NOTHING_OWED = "NOTHING_OWED"
    """The order is paid, or its payments do not add up: that is to be mended first."""
    OTHER_CURRENCY = "OTHER_CURRENCY"
    TOO_MUCH = "TOO_MUCH"
    """With it the order would be paid more than its total."""
    USED = "USED"
    """Something was bought for the order that it came for, or its money is asked back for that one."""


def misfit(order: Fulfillment, money: Money, payment: Payment, *, customer_id: str) -> Misfit | None:
    """Return why a payment cannot be given to an order with such money; None when it can."""
    total = order.order.total
    if order.order.customer.customer_id != customer_id:
        return Misfit.OTHER_CUSTOMER
    if order.cancel_time is not None:
        return Misfit.ORDER_OVER
    if order.purchases or judge(total, money).verdict is not PaymentVerdict.SHORT:
        return Misfit.NOTHING_OWED
    if payment.amount.currency_code != total.currency_code:
        return Misfit.OTHER_CURRENCY
    after = judge(total, Money([*money.payments, payment], money.refunds)).verdict
    return None if after in {PaymentVerdict.SHORT, PaymentVerdict.PAID} else Misfit.TOO_MUCH


def judge(total: Amount, money: Money) -> Paid:
    """Compare what is left of an order's payments with its total.

    A refund counts for the payment that it names, known or not: nothing may be left below nothing.
    """
    gross, back = Counter[str](), Counter[str]()
    for payment in money.payments:
        gross[payment.amount.currency_code] += payment.amount.minor_units
    for refund in money.refunds:
        back[refund.amount.currency_code] += refund.amount.minor_units
    currency = total.currency_code if total.currency_code in gross or not gross else min(gross)
    amount = Amount(currency, gross[currency]) if gross else None
    refunded = Amount(currency, back[currency]) if back[currency] else None
    return Paid(_verdict(total, gross, back), amount, refunded)


def _verdict(total: Amount, gross: Counter[str], back: Counter[str]) -> PaymentVerdict:
    left = {currency: gross[currency] - back[currency] for currency in {*gross, *back}}
    own = left.pop(total.currency_code, 0)
    if any(left.values()) or not 0 <= own <= total.minor_units:
        return PaymentVerdict.MISMATCH
    if own == total.minor_units:
        return PaymentVerdict.PAID
    if gross and not own:
        return PaymentVerdict.GIVEN_BACK
    return PaymentVerdict.CUT if back[total.currency_code] else PaymentVerdict.SHORT
