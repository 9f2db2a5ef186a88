import re
from collections import Counter
from random import Random

import pytest
from fulfillment.domain.model import Item, ItemId, OrderId
from fulfillment.domain.planner import MOST_PER_PURCHASE, external_id, plan
from hypothesis import given
from hypothesis import strategies as st

ORDER = OrderId("order-1")
NAMES = st.text("abcXYZ019._-", min_size=1, max_size=64)


def an_item(item_id: str, quantity: int, product_id: str = "product-1") -> Item:
    return Item(ItemId(item_id), product_id, quantity, max_unit_price=999)


ITEMS = st.lists(
    st.builds(an_item, NAMES, st.integers(1, 200), st.sampled_from(["product-1", "product-2"])),
    min_size=1,
    max_size=6,
    unique_by=lambda item: item.item_id,
)


@given(NAMES, ITEMS)
def test_every_ordered_key_is_in_exactly_one_purchase(order_id: str, items: list[Item]) -> None:
    bought = Counter[ItemId]()
    for purchase in plan(OrderId(order_id), items):
        bought[purchase.item_id] += purchase.quantity
    assert bought == {item.item_id: item.quantity for item in items}


@given(NAMES, ITEMS)
def test_no_purchase_breaks_a_limit_of_the_supplier(order_id: str, items: list[Item]) -> None:
    """One purchase holds one line of one product: 9 keys of an offer, and so never 10 lines or 90 keys."""
    for purchase in plan(OrderId(order_id), items):
        assert 1 <= purchase.quantity <= MOST_PER_PURCHASE == 9


@given(NAMES, ITEMS)
def test_no_reference_is_derived_twice(order_id: str, items: list[Item]) -> None:
    planned = plan(OrderId(order_id), items)
    assert len({purchase.external_id for purchase in planned}) == len(planned)


@given(NAMES, ITEMS)
def test_the_same_order_is_planned_the_same(order_id: str, items: list[Item]) -> None:
    assert plan(OrderId(order_id), items) == plan(OrderId(order_id), list(items))


@given(NAMES, ITEMS, st.randoms(use_true_random=False))
def test_references_do_not_depend_on_the_order_of_lines(order_id: str, items: list[Item], luck: Random) -> None:
    shuffled = list(items)
    luck.shuffle(shuffled)
    assert set(plan(OrderId(order_id), items)) == set(plan(OrderId(order_id), shuffled))


@pytest.mark.parametrize(
    ("quantity", "chunks"), [(1, [1]), (8, [8]), (9, [9]), (10, [9, 1]), (18, [9, 9]), (91, [9] * 10 + [1])]
)
def test_a_line_is_bought_in_chunks(quantity: int, chunks: list[int]) -> None:
    planned = plan(ORDER, [an_item("item-1", quantity)])
    assert [purchase.quantity for purchase in planned] == chunks
    assert [purchase.chunk for purchase in planned] == list(range(len(chunks)))
    assert {purchase.attempt for purchase in planned} == {1}


@given(NAMES, NAMES, st.integers(0, 200), st.integers(1, 99))
def test_a_reference_suits_the_supplier(order_id: str, item_id: str, chunk: int, attempt: int) -> None:
    assert re.fullmatch(r"kf1-[a-z2-7]{32}", external_id(OrderId(order_id), ItemId(item_id), chunk, attempt))


def test_every_part_of_a_reference_counts() -> None:
    parts = [
        ("a", "b", 0, 1),
        ("ab", "", 0, 1),
        ("a", "b", 1, 1),
        ("a", "b", 0, 2),
        ("b", "a", 0, 1),
        ("a", "b0", 1, 1),
    ]
    assert len({external_id(OrderId(order), ItemId(item), chunk, no) for order, item, chunk, no in parts}) == 6


def test_references_are_the_same_for_ever() -> None:
    """A database restored from an old backup must find what it bought: a change here buys everything again."""
    assert external_id(ORDER, ItemId("item-1"), 0, 1) == "kf1-q4lsc7a3uys6yqptbopkcl5jrt6sqqvz"
