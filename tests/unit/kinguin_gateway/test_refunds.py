"""What came back of an order's charge, as far as the supplier's answer tells it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from kinguin_gateway.convert_products import order_to_proto
from kinguin_gateway.domain.purchase import OrderKey, SupplierKeyState, SupplierOrder
from kinguin_gateway.domain.refunds import paid_back_cents

from tests.unit.kinguin_gateway.fakes import an_order

D, T, R, C = (
    SupplierKeyState.DELIVERED,
    SupplierKeyState.RETURNED,
    SupplierKeyState.REFUNDED,
    SupplierKeyState.CANCELED,
)


def an_order_of(
    states: Sequence[SupplierKeyState | None], *, price: int | None = 999, charged: int | None = 1998
) -> SupplierOrder:
    (line,) = an_order().lines
    keys = [OrderKey(f"k{number}", state) for number, state in enumerate(states)]
    lines = [replace(line, keys=keys, delivered=states.count(D), unit_cents=price)]
    return an_order(lines=lines, charged_cents=charged, total_cents=1998)


@pytest.mark.parametrize(
    ("order", "cents"),
    [
        (an_order_of([D, D]), 0),
        (an_order_of([D, T]), 0),
        (an_order_of([D, R]), 999),
        (an_order_of([D, C]), 999),
        (an_order_of([R, C]), 1998),
        # A surcharge comes back with the last key; nobody says how much of it with the first.
        (an_order_of([D, R], charged=2050), None),
        (an_order_of([R, R], charged=2050), 2050),
        (an_order_of([R, R], price=None), 1998),
        (an_order_of([D, R], price=None), None),
        (an_order_of([R, R], charged=None), None),
        # A key that is ordered and not listed is not there to be paid back.
        (an_order_of([R]), 999),
        (an_order_of([None, R]), 999),
        (an_order(), None),
        (an_order(lines=[]), None),
    ],
)
def test_k25_k41_what_was_paid_back_is_told_where_it_is_known(order: SupplierOrder, cents: int | None) -> None:
    assert paid_back_cents(order) == cents


def test_keys_are_counted_by_state_where_they_are_listed() -> None:
    shown = order_to_proto(an_order_of([D, D, T, R, R, R, C, None, SupplierKeyState.PENDING]))
    counts = shown.key_counts
    assert (counts.delivered_count, counts.returned_count, counts.refunded_count) == (2, 1, 3)
    assert (counts.canceled_count, counts.pending_count) == (1, 2)
    assert shown.quantity == 2
    unlisted = order_to_proto(an_order(lines=[]))
    assert not unlisted.HasField("key_counts")
    assert not unlisted.HasField("quantity")
    assert not unlisted.HasField("refunded_amount")
