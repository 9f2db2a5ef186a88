import random
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from sandbox.kinguin.catalogue import BY_ID, Offer, OfferStock, Product
from sandbox.kinguin.picking import Pick, pick_offers
from sandbox.kinguin.problems import Refusal
from sandbox.kinguin.rules import Line, PlaceOrder

PRODUCT = Product(
    "game",
    1,
    "A game",
    (
        Offer("cheap", "A", Decimal(5), text=6),
        Offer("dear", "B", Decimal(6), text=4, image=4),
        Offer("dearest", "C", Decimal(7), text=2, promised=5),
    ),
)
STOCK = [OfferStock(offer, offer.price, offer.text, offer.image, offer.promised) for offer in PRODUCT.offers]


def pick(*lines: Line, stock: list[OfferStock] = STOCK, seed: int = 1) -> list[Pick]:
    return pick_offers(PlaceOrder(lines), {"game": PRODUCT}, {"game": stock}, random.Random(seed))  # noqa: S311 # no secret


def shape(picks: list[Pick]) -> Iterator[tuple[str, int]]:
    return ((each.offer_id, each.qty) for each in picks)


def test_k22_the_cheapest_offers_serve_a_line() -> None:
    picks = pick(Line("game", 8, Decimal(10)))
    assert list(shape(picks)) == [("cheap", 6), ("dear", 2)]
    assert [each.price for each in picks] == [Decimal(5), Decimal(6)]


def test_k22_no_offer_above_the_accepted_price() -> None:
    with pytest.raises(Refusal) as caught:
        pick(Line("game", 8, Decimal("5.99")))
    assert caught.value.kind == "ProductUnavailable"


def test_a_named_offer_alone_serves_its_line() -> None:
    assert list(shape(pick(Line("game", 3, Decimal(10), offer_id="dear")))) == [("dear", 3)]
    with pytest.raises(Refusal):
        pick(Line("game", 9, Decimal(10), offer_id="dear"))


def test_k19_lines_share_the_limit_and_the_stock_of_an_offer() -> None:
    plenty = [replace(STOCK[0], text=100), STOCK[1]]
    picks = pick(Line("game", 9, Decimal(10)), Line("game", 3, Decimal(10)), stock=plenty)
    assert list(shape(picks)) == [("cheap", 9), ("dear", 3)]


def test_k23_text_is_never_a_picture_and_without_wish_it_is_luck() -> None:
    wanted = [pick(Line("game", 4, Decimal(10), key_type="text", offer_id="dear"), seed=seed)[0] for seed in range(20)]
    assert {(each.text, each.image) for each in wanted} == {(4, 0)}
    lucky = {pick(Line("game", 4, Decimal(10), offer_id="dear"), seed=seed)[0].image for seed in range(40)}
    assert len(lucky) > 1


def test_k14_promised_keys_are_used_last() -> None:
    (only,) = pick(Line("game", 4, Decimal(10), offer_id="dearest"))
    assert (only.text, only.late) == (2, 2)


def test_k31_wholesale_costs_the_price_of_its_tier() -> None:
    hexwright = BY_ID["65a0c1d2e3f4051627380008"]
    offer = hexwright.offers[0]
    stocks = {hexwright.product_id: [OfferStock(offer, offer.price, offer.text, 0, 0)]}

    luck = random.Random(1)  # noqa: S311 # no secret

    def buy(qty: int, price: str) -> Decimal:
        line = Line(hexwright.product_id, qty, Decimal(price), offer_id=offer.offer_id)
        return pick_offers(PlaceOrder((line,)), BY_ID, stocks, luck)[0].price

    assert buy(50, "3.60") == Decimal("3.60")
    assert buy(9, "4.00") == Decimal("4.00")
    with pytest.raises(Refusal):
        buy(50, "3.59")
