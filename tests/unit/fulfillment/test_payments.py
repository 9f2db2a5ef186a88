import itertools
from datetime import UTC, datetime

import pytest
from fulfillment.domain.model import Amount, Money, OrderId, Payment, Refund
from fulfillment.domain.payments import Paid, PaymentVerdict, judge
from hypothesis import given
from hypothesis import strategies as st

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TOTAL = Amount("EUR", 1000)
SHORT, PAID, MISMATCH, CUT, BACK = PaymentVerdict


def amounts(text: str) -> list[Amount]:
    """Read amounts from `EUR 400, USD 1`."""
    return [Amount(each.split()[0], int(each.split()[1])) for each in text.split(",") if each.strip()]


def money(paid: list[Amount], back: list[Amount]) -> Money:
    return Money(
        [Payment("stripe", f"p-{number}", OrderId("o"), each, NOON) for number, each in enumerate(paid)],
        [Refund("stripe", f"r-{number}", "p-0", each, NOON) for number, each in enumerate(back)],
    )


# fmt: off
JUDGED = [
    # paid                given back            verdict   amount      refunded
    ("",                  "",                   SHORT,    "",         ""),
    ("EUR 999",           "",                   SHORT,    "EUR 999",  ""),
    ("EUR 1000",          "",                   PAID,     "EUR 1000", ""),
    ("EUR 1001",          "",                   MISMATCH, "EUR 1001", ""),
    ("EUR 400, EUR 600",  "",                   PAID,     "EUR 1000", ""),
    ("EUR 400, EUR 599",  "",                   SHORT,    "EUR 999",  ""),
    ("EUR 1000, EUR 1",   "",                   MISMATCH, "EUR 1001", ""),
    ("USD 1000",          "",                   MISMATCH, "USD 1000", ""),
    ("USD 1, EUR 1000",   "",                   MISMATCH, "EUR 1000", ""),
    ("USD 1000, EUR 500", "",                   MISMATCH, "EUR 500",  ""),
    ("EUR 1000",          "EUR 1000",           BACK,     "EUR 1000", "EUR 1000"),
    ("EUR 1000",          "EUR 400, EUR 600",   BACK,     "EUR 1000", "EUR 1000"),
    ("EUR 1000",          "EUR 1",              CUT,      "EUR 1000", "EUR 1"),
    ("EUR 400, EUR 300",  "EUR 400",            CUT,      "EUR 700",  "EUR 400"),
    ("EUR 1000",          "EUR 1001",           MISMATCH, "EUR 1000", "EUR 1001"),
    ("EUR 1001",          "EUR 1",              PAID,     "EUR 1001", "EUR 1"),
    ("EUR 2000",          "EUR 1000",           PAID,     "EUR 2000", "EUR 1000"),
    ("EUR 400",           "EUR 400",            BACK,     "EUR 400",  "EUR 400"),
    ("USD 1000",          "USD 1000",           BACK,     "USD 1000", "USD 1000"),
    ("USD 1000",          "USD 999",            MISMATCH, "USD 1000", "USD 999"),
    ("USD 5, EUR 1000",   "USD 5",              PAID,     "EUR 1000", ""),
    ("USD 5, EUR 1000",   "USD 5, EUR 1000",    BACK,     "EUR 1000", "EUR 1000"),
    ("EUR 1000",          "USD 1000",           MISMATCH, "EUR 1000", ""),
    ("USD 7, GBP 7",      "",                   MISMATCH, "GBP 7",    ""),
]
# fmt: on


@pytest.mark.parametrize(("paid", "back", "verdict", "amount", "refunded"), JUDGED)
def test_what_is_left_of_the_payments_is_compared_with_the_total(
    paid: str, back: str, verdict: PaymentVerdict, amount: str, refunded: str
) -> None:
    expected = Paid(verdict, next(iter(amounts(amount)), None), next(iter(amounts(refunded)), None))
    judged = judge(TOTAL, money(amounts(paid), amounts(back)))
    assert judged == expected
    assert judged.reaches_total == (verdict is PAID)


EACH = ["", "EUR 400", "EUR 1000", "EUR 1001", "USD 1000"]


@pytest.mark.parametrize(("first", "second", "back"), list(itertools.product(EACH, EACH, EACH)))
def test_every_combination_has_the_verdict_that_its_sums_say(first: str, second: str, back: str) -> None:
    paid, returned = [*amounts(first), *amounts(second)], amounts(back)
    left = {currency: _sum(paid, currency) - _sum(returned, currency) for currency in ("EUR", "USD")}
    if left["USD"] or not 0 <= left["EUR"] <= 1000:
        expected = MISMATCH
    elif left["EUR"] == 1000:
        expected = PAID
    else:
        expected = BACK if paid and not left["EUR"] else CUT if _sum(returned, "EUR") else SHORT
    assert judge(TOTAL, money(paid, returned)).verdict is expected


def _sum(found: list[Amount], currency: str) -> int:
    return sum(each.minor_units for each in found if each.currency_code == currency)


AMOUNTS = st.lists(st.builds(Amount, st.sampled_from(["EUR", "USD"]), st.integers(1, 2000)), max_size=5)


@given(st.integers(1, 10**12), st.lists(st.integers(1, 10**12)))
def test_only_the_exact_amount_ever_buys(total: int, payments: list[int]) -> None:
    verdict = judge(Amount("EUR", total), money([Amount("EUR", each) for each in payments], [])).verdict
    assert (verdict is PAID) == (sum(payments) == total)


@given(AMOUNTS, AMOUNTS)
def test_the_order_of_payments_and_refunds_does_not_matter(paid: list[Amount], back: list[Amount]) -> None:
    assert judge(TOTAL, money(paid, back)) == judge(TOTAL, money(paid[::-1], back[::-1]))


@given(AMOUNTS, AMOUNTS)
def test_money_that_was_never_paid_buys_nothing(paid: list[Amount], back: list[Amount]) -> None:
    if _sum(paid, "EUR") < TOTAL.minor_units:
        assert judge(TOTAL, money(paid, back)).verdict is not PAID
