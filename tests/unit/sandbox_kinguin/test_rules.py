from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox.kinguin.catalogue import BY_ID
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import check_limits, parse_place_order

from tests.unit.sandbox_kinguin.asked import accept, line, refusal
from tests.unit.sandbox_kinguin.simulated_supplier import offer, product


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (None, ""),
        ([], ""),
        ({}, "products"),
        ({"products": {}}, "products"),
        ({"products": []}, "products"),
        ({"products": ["x"]}, "products[0]"),
        ({"products": [{"qty": 1, "price": 1}]}, "products[0].productId"),
        ({"products": [{"productId": 7, "qty": 1, "price": 1}]}, "products[0].productId"),
        ({"products": [{"productId": "\ud800", "qty": 1, "price": 1}]}, "products[0].productId"),
        ({"products": [line(qty=0)]}, "products[0].qty"),
        ({"products": [line(qty=-3)]}, "products[0].qty"),
        ({"products": [line(qty="1")]}, "products[0].qty"),
        ({"products": [line(qty=True)]}, "products[0].qty"),
        ({"products": [line(qty=Decimal("1.5"))]}, "products[0].qty"),
        ({"products": [line(qty=Decimal("1e999999"))]}, "products[0].qty"),
        ({"products": [line(qty=Decimal("Infinity"))]}, "products[0].qty"),
        ({"products": [line(qty=Decimal("NaN"))]}, "products[0].qty"),
        ({"products": [line(price="5")]}, "products[0].price"),
        ({"products": [line(price=True)]}, "products[0].price"),
        ({"products": [line(price=-1)]}, "products[0].price"),
        ({"products": [line(price=Decimal("1e999999"))]}, "products[0].price"),
        ({"products": [line(offerId=None)]}, "products[0].offerId"),
        ({"products": [line()], "orderExternalId": None}, "orderExternalId"),
        ({"products": [line()], "orderExternalId": "x" * 256}, "orderExternalId"),
    ],
)
def test_a_body_that_breaks_the_contract_names_the_field(body: object, path: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_place_order(body)
    assert (caught.value.kind, caught.value.status) == ("ConstraintViolation", 400)
    assert caught.value.property_path == path


def test_an_integer_may_be_written_with_a_fraction_of_zero() -> None:
    assert accept(line(qty=Decimal("2.0"))).lines[0].qty == 2


def test_k19_at_most_nine_per_offer() -> None:
    accept(line(qty=9))
    assert refusal(line(qty=10)).kind == "ConstraintViolation"


def test_k19_counts_all_lines_of_one_offer() -> None:
    named = line(qty=5, offerId=offer("01"))
    assert refusal(named, named).kind == "ConstraintViolation"


def test_k20_at_most_ten_lines() -> None:
    accept(*[line() for _ in range(10)])
    assert refusal(*[line() for _ in range(11)]).property_path == "products"


def test_k21_at_most_ninety_in_all() -> None:
    accept(*[line(qty=9) for _ in range(10)])
    refused = refusal(*[line(qty=9) for _ in range(9)], line(qty=10))
    assert "90" in refused.detail
    assert refused.invalid_value == 91


@pytest.mark.parametrize("key_type", ["image", "", None, "TEXT", 1])
def test_k23_key_type_can_only_be_text(key_type: object) -> None:
    assert accept(line(keyType="text")).lines[0].key_type == "text"
    assert refusal(line(keyType=key_type)).property_path == "products[0].keyType"


def test_k26_the_coupon_field_is_gone() -> None:
    assert refusal(line(), couponCode="ESA").property_path == "couponCode"


def test_unknown_products_and_offers_are_unavailable() -> None:
    assert refusal(line("ff")).kind == "ProductUnavailable"
    assert refusal(line("01", offerId=offer("02"))).kind == "ProductUnavailable"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["productId", "qty", "price", "keyType", "offerId"])


@given(st.lists(st.dictionaries(FIELDS, JSON | st.sampled_from([product("01"), "text"])), max_size=12) | JSON)
def test_whatever_is_sent_is_an_order_or_a_refusal(products: Any) -> None:
    with suppress(Refusal):
        check_limits(parse_place_order({"products": products}), BY_ID)
