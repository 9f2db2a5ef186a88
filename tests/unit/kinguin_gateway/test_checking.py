"""What is looked at before anything leaves us, rule by rule."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kinguin_gateway.checking import FRESH_SECONDS, Checker
from kinguin_gateway.domain.offers import check
from kinguin_gateway.domain.purchase import Offer, Product, Tier
from kinguin_gateway.errors import SupplierUnavailable

from tests.unit.kinguin_gateway.fakes import INTENT, FakeSupplier, a_product
from tests.unit.simulated import EPOCH, simulate

TIERS = (Tier(10, 900), Tier(50, 850), Tier(100, 800), Tier(500, 700))
BULK = Offer(999, 5000, offer_id="bulk", available_text=5000, tiers=TIERS)


def refusal(product: Product | None, country_code: str = "", **changes: Any) -> str:
    checked = check(product, replace(INTENT, **changes), country_code)
    return "" if checked.refusal is None else checked.refusal.kind


def offers(*these: Offer) -> Product:
    return a_product(offers=these)


def test_k8_a_product_that_is_not_there_is_not_bought() -> None:
    assert refusal(None) == "product_unknown"


@pytest.mark.parametrize(("country", "kind"), [("DE", "country_excluded"), ("de", "country_excluded"), ("AT", "")])
def test_k15_a_product_that_cannot_be_activated_there_is_not_bought(country: str, kind: str) -> None:
    assert refusal(a_product(excluded_countries=("DE", "FR")), country) == kind
    assert refusal(a_product(excluded_countries=("DE", "FR"))) == ""


def test_k14_what_is_only_promised_is_not_there() -> None:
    assert refusal(offers(Offer(999, 1, offer_id="a")), quantity=2) == "out_of_stock"
    assert refusal(offers(Offer(999, 0, offer_id="a"))) == "out_of_stock"


def test_k14_k23_text_is_counted_by_itself_where_it_is_asked_for() -> None:
    pictures = offers(Offer(999, 50, offer_id="a", available_text=1))
    assert refusal(pictures, quantity=2) == ""
    assert refusal(pictures, quantity=2, key_type="text") == "out_of_stock"


def test_k22_k23_the_cheapest_offer_that_has_text_decides_where_text_is_asked_for() -> None:
    pictures = Offer(900, 50, offer_id="a")
    text = Offer(1400, 50, offer_id="b", available_text=50)
    assert refusal(offers(pictures, text), key_type="text") == "price_above_limit"
    assert refusal(offers(pictures, text)) == ""
    assert refusal(offers(pictures), key_type="text") == "out_of_stock"


def test_k22_a_price_above_the_limit_is_not_accepted() -> None:
    assert refusal(offers(Offer(1300, 50, offer_id="a"))) == "price_above_limit"
    assert refusal(offers(Offer(1299, 50, offer_id="a"))) == ""
    assert refusal(a_product(price_cents=1300, offers=())) == "price_above_limit"


def test_k22_offers_within_the_limit_serve_together() -> None:
    several = offers(Offer(900, 3, offer_id="a"), Offer(1000, 3, offer_id="b"), Offer(1300, 90, offer_id="c"))
    assert refusal(several, quantity=6) == ""
    assert refusal(several, quantity=7) == "out_of_stock"
    assert refusal(several, quantity=4, offer_id="a") == "out_of_stock"
    assert refusal(several, offer_id="nobody's") == "out_of_stock"


def test_k19_k27_more_than_nine_are_only_bought_wholesale() -> None:
    assert refusal(a_product(), quantity=10, offer_id="offer-1") == "not_wholesale"
    assert refusal(a_product(), quantity=9) == ""


def test_k27_many_keys_are_bought_of_an_offer_that_is_named() -> None:
    assert refusal(offers(BULK), quantity=10) == "not_wholesale"
    assert refusal(offers(BULK), quantity=10, offer_id="bulk") == ""


def test_k28_k29_at_most_a_thousand_are_bought_at_once() -> None:
    assert refusal(offers(BULK), quantity=1000, offer_id="bulk") == ""
    assert refusal(offers(BULK), quantity=1001, offer_id="bulk") == "not_wholesale"


def test_k30_an_offer_without_wholesale_is_not_bought_wholesale() -> None:
    assert refusal(offers(replace(BULK, tiers=())), quantity=10, offer_id="bulk") == "not_wholesale"
    assert refusal(offers(replace(BULK, tiers=TIERS[1:])), quantity=10, offer_id="bulk") == "not_wholesale"


@pytest.mark.parametrize(("quantity", "cents"), [(10, 900), (49, 900), (50, 850), (100, 800), (499, 800), (1000, 700)])
def test_k31_the_price_of_the_tier_is_sent(quantity: int, cents: int) -> None:
    checked = check(offers(BULK), replace(INTENT, quantity=quantity, offer_id="bulk"), "")
    assert (checked.refusal, checked.unit_cents) == (None, cents)


def test_k31_a_tier_above_the_limit_or_beyond_the_stock_is_not_bought() -> None:
    assert refusal(offers(BULK), quantity=10, offer_id="bulk", max_unit_cents=899) == "price_above_limit"
    assert refusal(offers(replace(BULK, available=99)), quantity=100, offer_id="bulk") == "out_of_stock"


def test_k34_k35_k36_a_preorder_is_bought_one_by_one_and_without_a_key_type() -> None:
    coming = a_product(preorder=True, release_time=EPOCH + timedelta(days=90), offers=(Offer(999, 0, offer_id="a"),))
    assert refusal(coming, quantity=1, key_type="text") == "preorder_rules"
    assert refusal(coming, quantity=2) == "preorder_rules"
    assert refusal(coming, quantity=1, max_unit_cents=998) == "price_above_limit"
    checked = check(coming, replace(INTENT, quantity=1), "")
    assert (checked.refusal, checked.preorder, checked.release_time) == (None, True, EPOCH + timedelta(days=90))


def test_one_reading_serves_purchases_of_the_same_moments_and_a_no_is_always_fresh() -> None:
    async def run() -> None:
        supplier = Counting()
        checker = Checker(supplier, supplier.clock)
        await asyncio.gather(*(checker.check(INTENT, "") for _ in range(20)))
        assert supplier.read == 1
        # Sold out in between: what is remembered says yes, and the supplier itself will say no.
        supplier.products[INTENT.product_id] = a_product(offers=(Offer(999, 0),))
        assert (await checker.check(INTENT, "")).refusal is None
        await asyncio.sleep(FRESH_SECONDS + 1)
        assert (await checker.check(INTENT, "")).refusal is not None
        # There again: a no is never remembered.
        supplier.products[INTENT.product_id] = a_product()
        assert (await checker.check(INTENT, "")).refusal is None

    simulate(run())


def test_without_a_reading_nothing_is_said() -> None:
    async def run() -> None:
        supplier = Counting()
        checker = Checker(supplier, supplier.clock)
        supplier.away = True
        for _ in range(2):
            with pytest.raises(SupplierUnavailable):
                await checker.check(INTENT, "")
        supplier.away = False
        assert (await checker.check(INTENT, "")).refusal is None

    simulate(run())


class Counting(FakeSupplier):
    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    async def read_product(self, product_id: str) -> Product | None:
        self.read += 1
        await asyncio.sleep(0.1)
        return await super().read_product(product_id)
