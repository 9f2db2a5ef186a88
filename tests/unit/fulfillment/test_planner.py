"""Whatever is for sale: what is planned is bought once, within every limit, as kinguin-gateway would have it."""

import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from fulfillment.domain.model import ExternalId, ItemId, KeyId, OrderId
from fulfillment.domain.planner import (
    LANES,
    MOST_PER_PURCHASE,
    Place,
    Planned,
    Unplannable,
    Wish,
    external_id,
    lane,
    plan,
    replacement_id,
)
from fulfillment.domain.product import Offer, Product
from hypothesis import assume, given
from hypothesis import strategies as st
from kinguin_gateway.domain import offers as gateway
from kinguin_gateway.domain import purchase as theirs

from tests.unit.fulfillment.planning import (
    LIMIT,
    LINE,
    LUCK,
    NAMES,
    ORDER,
    PRICES,
    PRODUCTS,
    QUANTITIES,
    WISHES,
    a_product,
    a_wish,
    an_offer,
    purchases,
    some_products,
)


def at_gateway(product: Product) -> theirs.Product:
    return theirs.Product(
        *(product.product_id, product.name, product.price, product.available, product.preorder),
        *(sorted(product.excluded_countries), ""),
        offers=[
            theirs.Offer(
                *(offer.price, offer.available, offer.offer_id, "", offer.available_text),
                [theirs.Tier(tier.min_quantity, tier.price) for tier in offer.tiers],
            )
            for offer in product.offers
        ],
    )


def checked(product: Product | None, wish: Wish, planned: Planned) -> gateway.Checked:
    intent = theirs.Intent(
        *(planned.external_id, wish.order_id, planned.item_id, wish.item.product_id),
        *(planned.offer_id, planned.quantity, planned.unit_limit, wish.item.key_type),
    )
    return gateway.check(at_gateway(product) if product else None, intent, wish.country_code)


def stock(product: Product, wish: Wish) -> dict[str, int]:
    if not product.offers:
        return {"": product.available}
    return {each.offer_id: each.available_text if wish.item.key_type else each.available for each in product.offers}


def price_of(product: Product, planned: Planned) -> int | None:
    """Return what a key of the purchase costs, in the supplier's words (K22, K31)."""
    offer = next(offer for offer in product.offers if offer.offer_id == planned.offer_id)
    if planned.quantity <= MOST_PER_PURCHASE:
        return offer.price
    return next(tier.price for tier in reversed(offer.tiers) if tier.min_quantity <= planned.quantity)


def assigned(product: Product, wish: Wish) -> list[Planned]:
    """Return the purchases that stock is seen for; without an offer of its own none is, where offers are listed."""
    return [each for each in purchases(plan(wish, product)) if each.offer_id]


# What is bought


@given(WISHES, PRODUCTS)
def test_every_ordered_key_is_in_exactly_one_purchase(wish: Wish, product: Product) -> None:
    planned = purchases(plan(wish, product))
    assume(planned)
    assert sum(each.quantity for each in planned) == wish.quantity
    assert all(each.quantity >= 1 for each in planned)


@given(WISHES, PRODUCTS)
def test_no_reference_is_derived_twice(wish: Wish, product: Product) -> None:
    planned = purchases(plan(wish, product))
    assert len({each.external_id for each in planned}) == len(planned)
    assert planned[:1] == [each for each in planned if each.external_id == wish.own.external_id]
    for chunk, each in enumerate(planned[1:], wish.next_chunk):
        assert each.external_id == external_id(ORDER, LINE, chunk, 1)
        assert (each.item_id, each.chunk, each.attempt) == (LINE, chunk, 1)


@given(WISHES, PRODUCTS, LUCK)
def test_the_same_is_planned_the_same_however_offers_are_listed(wish: Wish, product: Product, luck: Random) -> None:
    shuffled = luck.sample(list(product.offers), len(product.offers))
    assert plan(wish, product) == plan(wish, replace(product, offers=shuffled))


@given(WISHES, PRODUCTS)
def test_no_purchase_breaks_a_limit_of_the_supplier(wish: Wish, product: Product) -> None:
    for each in purchases(plan(wish, product)):
        assert 1 <= each.quantity <= 1000
        assert each.unit_limit == wish.limit
        if each.quantity > 9:
            assert each.quantity >= min(tier.min_quantity for tier in offer_of(product, each).tiers)


def offer_of(product: Product, planned: Planned) -> Offer:
    return next(offer for offer in product.offers if offer.offer_id == planned.offer_id)


@given(WISHES, PRODUCTS)
def test_the_gateway_takes_each_purchase_that_stock_is_there_for(wish: Wish, product: Product) -> None:
    planned = purchases(plan(wish, product))
    assume(planned)
    left = stock(product, wish)
    for each in planned:
        if (each.offer_id or not product.offers) and left[each.offer_id] >= each.quantity:
            left[each.offer_id] -= each.quantity
            assert checked(product, wish, each).refusal is None


@given(WISHES, PRODUCTS)
def test_nothing_above_the_limit_is_bought(wish: Wish, product: Product) -> None:
    assume(not wish.item.offer_id)  # What the shop insists on is asked for even where it is not there.
    for each in assigned(product, wish):
        price = price_of(product, each) or product.price
        assert price is not None
        assert price <= wish.limit


@given(WISHES, PRODUCTS)
def test_no_more_of_an_offer_is_bought_than_is_there(wish: Wish, product: Product) -> None:
    assume(not wish.item.offer_id)
    bought = Counter[str]()
    for each in assigned(product, wish):
        bought[each.offer_id] += each.quantity
    assert bought <= Counter(stock(product, wish))


@given(QUANTITIES, some_products(priced=True))
def test_no_cheaper_stock_is_left_while_a_dearer_one_is_used(quantity: int, product: Product) -> None:
    wish = a_wish(quantity)
    planned = assigned(product, wish)
    left = Counter(stock(product, wish))
    for each in planned:
        left[each.offer_id] -= each.quantity
    for offer in product.offers:
        for least, price in [(1, offer.price), *((tier.min_quantity, tier.price) for tier in offer.tiers)]:
            assert price is not None
            dearer = sum(each.quantity for each in planned if (price_of(product, each) or 0) > price)
            assert price > LIMIT or min(left[offer.offer_id], dearer) < least


@given(QUANTITIES, st.lists(st.tuples(PRICES, st.integers(0, 60)), min_size=1, max_size=6))
def test_without_wholesale_a_plan_costs_the_least_possible(quantity: int, listed: list[tuple[int, int]]) -> None:
    product = a_product(*(an_offer(str(at), price, there) for at, (price, there) in enumerate(listed)))
    paid = sum((price_of(product, each) or 0) * each.quantity for each in assigned(product, a_wish(quantity)))
    keys = sorted(price for price, there in listed for _ in range(there) if price <= LIMIT)
    assert paid == sum(keys[:quantity])


@given(WISHES, PRODUCTS)
def test_what_cannot_be_planned_is_what_the_gateway_refuses_for_the_same_reason(wish: Wish, product: Product) -> None:
    planned = plan(replace(wish, quantity=1), product)
    assume(isinstance(planned, Unplannable) and all(offer.price is not None for offer in product.offers))
    assert isinstance(planned, Unplannable)
    asked = Planned(wish.own.external_id, LINE, 0, 1, 1, wish.item.offer_id, wish.limit)
    refusal = checked(product, wish, asked).refusal
    assert refusal is not None
    assert refusal.kind == planned.kind


@given(QUANTITIES, PRODUCTS)
def test_text_is_counted_only_where_it_is_asked_for(quantity: int, product: Product) -> None:
    pictures = replace(product, offers=[replace(offer, available_text=0) for offer in product.offers])
    assume(product.offers)
    assert plan(a_wish(quantity), pictures) == plan(a_wish(quantity), product)
    assert isinstance(plan(a_wish(quantity, key_type="text"), pictures), Unplannable)


@given(st.integers(1, 40), some_products(preorder=True))
def test_a_preorder_is_bought_key_by_key_whatever_is_there(quantity: int, product: Product) -> None:
    wish = a_wish(quantity)
    planned = purchases(plan(wish, product))
    assume(planned)
    assert [each.quantity for each in planned] == [1] * quantity
    assert all(checked(product, wish, each).refusal is None for each in planned)


# fmt: off
WHOLESALE = an_offer("w", 15, 2000, (10, 14), (50, 12), (100, 30))
CASES = [
    # What is there                                          how many  what is bought
    ([an_offer("a", 10, 99)],                                8,        [("a", 8)]),
    ([an_offer("a", 10, 99)],                                9,        [("a", 9)]),
    ([an_offer("a", 10, 99)],                                10,       [("a", 9), ("a", 1)]),
    ([an_offer("a", 10, 99)],                                18,       [("a", 9), ("a", 9)]),
    ([an_offer("a", LIMIT, 1)],                              1,        [("a", 1)]),
    ([an_offer("b", 9, 2), an_offer("a", 8, 1)],             3,        [("a", 1), ("b", 2)]),
    ([an_offer("b", 9, 9), an_offer("a", 9, 5)],             6,        [("b", 6)]),
    ([an_offer("b", 9, 5), an_offer("a", 9, 5)],             6,        [("a", 5), ("b", 1)]),
    ([an_offer("b", 9, 5), an_offer("a", None, 5)],          6,        [("b", 5), ("a", 1)]),
    ([an_offer("a", 21, 9), an_offer("b", 9, 5)],            20,       [("b", 5), ("", 9), ("", 6)]),
    ([WHOLESALE],                                            9,        [("w", 9)]),
    ([WHOLESALE],                                            10,       [("w", 10)]),
    ([WHOLESALE],                                            49,       [("w", 49)]),
    ([WHOLESALE],                                            50,       [("w", 50)]),
    # From 100 on it is too dear, so that two purchases are made.
    ([WHOLESALE],                                            100,      [("w", 99), ("w", 1)]),
    ([an_offer("w", 15, 30, (10, 14))],                      33,       [("w", 30), ("", 3)]),
    ([an_offer("w", 14, 30, (10, 14))],                      11,       [("w", 9), ("w", 2)]),
    ([an_offer("w", 99, 2000, (10, 20))],                    1000,     [("w", 1000)]),
    ([an_offer("w", 20, 2000, (10, 19))],                    1005,     [("w", 1000), ("w", 5)]),
    ([an_offer("", 10, 12, (10, 5))],                        12,       [("", 9), ("", 3)]),
]
# fmt: on


@pytest.mark.parametrize(("listed", "quantity", "bought"), CASES)
def test_what_is_cheapest_is_bought_in_chunks(
    listed: list[Offer], quantity: int, bought: list[tuple[str, int]]
) -> None:
    planned = purchases(plan(a_wish(quantity), a_product(*listed)))
    assert [(each.offer_id, each.quantity) for each in planned] == bought


A_KEY = an_offer("a", 10, 1)
# fmt: off
REFUSED = [
    (a_wish(1),                               None,                                        "product_unknown"),
    (replace(a_wish(1), country_code="ru"),   a_product(A_KEY),                            "country_excluded"),
    (a_wish(1, key_type="text"),              a_product(A_KEY, preorder=True),             "preorder_rules"),
    (a_wish(1, limit=9),                      a_product(A_KEY),                            "price_above_limit"),
    (a_wish(1, limit=9),                      a_product(A_KEY, preorder=True),             "price_above_limit"),
    (a_wish(1, limit=9),                      a_product(available=3, price=10),            "price_above_limit"),
    (a_wish(9),                               a_product(an_offer("w", 21, 9, (10, 1))),    "price_above_limit"),
    (a_wish(20),                              a_product(an_offer("w", 21, 9, (10, 1))),    "price_above_limit"),
    (a_wish(1),                               a_product(an_offer("a", None, 1), price=21), "price_above_limit"),
    (a_wish(1),                               a_product(an_offer("a", None, 1), price=None), "out_of_stock"),
    (a_wish(1, key_type="text"),              a_product(A_KEY),                            "out_of_stock"),
    (a_wish(1),                               a_product(an_offer("a", 10, 0)),             "out_of_stock"),
    (a_wish(1),                               a_product(),                                 "out_of_stock"),
    (a_wish(1, offer_id="b"),                 a_product(A_KEY),                            "out_of_stock"),
]
# fmt: on


@pytest.mark.parametrize(("wish", "product", "kind"), REFUSED)
def test_what_cannot_be_bought_is_told_why(wish: Wish, product: Product | None, kind: str) -> None:
    assert plan(wish, product) == Unplannable(kind)


def test_the_offer_that_the_shop_insists_on_is_bought_alone() -> None:
    product = a_product(an_offer("a", 1, 99), an_offer("b", 10, 3))
    planned = purchases(plan(a_wish(13, offer_id="b"), product))
    assert [(each.offer_id, each.quantity) for each in planned] == [("b", 3), ("b", 9), ("b", 1)]


def test_an_offer_that_refused_is_asked_again_only_when_nothing_else_is_left() -> None:
    wish = replace(a_wish(7, attempt=2), avoid=frozenset({"a"}))
    product = a_product(an_offer("a", 1, 99), an_offer("b", 10, 3), an_offer("c", None, 2))
    planned = purchases(plan(wish, product))
    assert [(each.offer_id, each.quantity) for each in planned] == [("b", 3), ("c", 2), ("a", 2)]
    assert [each.offer_id for each in assigned(a_product(an_offer("a", 1, 1)), replace(wish, quantity=1))] == ["a"]


def test_a_product_that_lists_no_offers_is_bought_without_one() -> None:
    for key_type in ("", "text"):
        planned = purchases(plan(a_wish(20, key_type=key_type), a_product(available=12)))
        assert [(each.offer_id, each.quantity) for each in planned] == [("", 9), ("", 3), ("", 8)]
    assert purchases(plan(a_wish(2), a_product(preorder=True, price=None)))


def test_orders_of_a_thousand_keys_are_planned() -> None:
    items = [replace(a_wish(quantity).item, item_id=ItemId(f"line-{quantity}")) for quantity in (1, 9, 90, 900)]
    references = Counter[ExternalId]()
    for item in items:
        own = Place(external_id(ORDER, item.item_id, 0, 1), 0, 1)
        wish = replace(a_wish(item.quantity), item=item, own=own)
        references.update(each.external_id for each in purchases(plan(wish, a_product(an_offer("a", 9, 1000)))))
    assert references == Counter(dict.fromkeys(references, 1))
    assert len(references) == 1 + 1 + 10 + 100


# References and lanes


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
    assert replacement_id(ORDER, ItemId("item-1"), KeyId("key-1"), 1) == "kf1-cdkhapc27lnwlr42yynkieynekpaaciv"


@given(NAMES, NAMES, NAMES, st.integers(0, 200), st.integers(1, 99))
def test_a_replacement_is_never_taken_for_a_chunk(order: str, item: str, key: str, chunk: int, attempt: int) -> None:
    replacement = replacement_id(OrderId(order), ItemId(item), KeyId(key), attempt)
    assert replacement != external_id(OrderId(order), ItemId(item), chunk, attempt)
    assert replacement != external_id(OrderId(order), ItemId("replacement"), chunk, attempt)
    assert replacement != replacement_id(OrderId(order), ItemId(item), KeyId(key), attempt + 1)
    assert replacement != replacement_id(OrderId(order), ItemId(item), KeyId(key + "0"), attempt)


@pytest.mark.parametrize(
    ("position", "expected"),
    [(0, 0), (3, 0), (4, 1), (15, 1), (16, 2), (63, 2), (64, 3), (255, 3), (256, 4), (1023, 4), (1024, 4), (10**6, 4)],
)
def test_a_lane_is_four_times_as_long_as_the_one_before(position: int, expected: int) -> None:
    assert lane(position) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_waits_behind_less_is_never_in_a_later_lane(position: int, more: int) -> None:
    assert 0 <= lane(position) <= lane(position + more) < LANES
