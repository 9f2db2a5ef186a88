from decimal import Decimal

import pytest
from sandbox.kinguin.catalogue import BY_ID

from tests.unit.sandbox_kinguin.asked import accept, line, refusal
from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, offer, product


def test_k27_wholesale_needs_an_offer() -> None:
    accept(line("08", qty=10, offerId=offer("08")))
    assert "offerId" in refusal(line("08", qty=10)).detail


def test_k28_at_most_a_thousand_of_an_offer() -> None:
    accept(line("08", qty=1000, offerId=offer("08")))
    assert refusal(line("08", qty=1001, offerId=offer("08"))).kind == "ConstraintViolation"


def test_k29_at_most_a_thousand_in_all() -> None:
    accept(line("08", qty=991, offerId=offer("08")), line(qty=9))
    assert "1000" in refusal(line("08", qty=992, offerId=offer("08")), line(qty=9)).detail


def test_k30_only_offers_with_wholesale() -> None:
    assert "no wholesale" in refusal(line("01", qty=10, offerId=offer("01"))).detail


def test_k31_each_tier_has_its_price() -> None:
    tiers = BY_ID[product("08")].offers[0].tier_price
    assert [tiers(qty) for qty in (9, 10, 49, 50, 99, 100, 499, 500)] == [
        None,
        *[Decimal(text) for text in ("3.80", "3.80", "3.60", "3.60", "3.40", "3.40", "3.20")],
    ]


async def test_k32_k44_keys_come_in_pages_without_a_total(world: World) -> None:
    line = {"offerId": "65b0c1d2e3f4051627380008"}
    order_id = await world.bought("08", 230, line=line)
    world.pass_time(11)

    async def page(**params: int) -> list[dict[str, str]]:
        response = await world.api.get(f"/v2/order/{order_id}/keys", params=params)
        assert isinstance(response.json(), list)
        keys: list[dict[str, str]] = response.json()
        return keys

    assert len(await page()) == 25
    pages = [await page(limit=100, page=number) for number in (1, 2, 3, 4)]
    assert [len(keys) for keys in pages] == [100, 100, 30, 0]
    assert len({key["serial"] for keys in pages for key in keys}) == 230
    over = await world.api.get(f"/v2/order/{order_id}/keys", params={"limit": 101})
    assert kind(over) == (400, "ConstraintViolation")


async def test_k30_the_product_tells_which_offers_have_wholesale(world: World) -> None:
    body = (await world.api.get(f"/v2/products/{product('0d')}")).json()
    told = {entry["offerId"][-2:]: entry["wholesale"] for entry in body["offers"]}
    assert (told["0d"]["enabled"], told["1d"]["enabled"]) == (False, True)
    assert told["1d"]["tiers"] == [{"level": 1, "price": 2.7}, {"level": 2, "price": 2.5}]
    without = await world.order("0d", 10, line={"offerId": offer("0d")})
    assert kind(without) == (400, "ConstraintViolation")


@pytest.mark.parametrize(
    ("qty", "price"),
    [(9, 400), (10, 380), (49, 380), (50, 360), (99, 360), (100, 340), (499, 340), (500, 320), (1000, 320)],
)
async def test_k31_the_price_of_the_tier_is_wanted_and_charged(world: World, qty: int, price: int) -> None:
    too_little = await world.order("08", qty, (price - 1) / 100, line={"offerId": offer("08")})
    assert kind(too_little) == (422, "ProductUnavailable")
    order = (await world.order("08", qty, price / 100, line={"offerId": offer("08")})).json()
    assert Decimal(str(order["paymentPrice"])) == Decimal(qty * price) / 100
    assert await world.balance() == 5000 - Decimal(qty * price) / 100


async def test_k33_one_wholesale_line_makes_the_whole_order_non_returnable(world: World) -> None:
    lines = [
        {"productId": product("08"), "offerId": offer("08"), "qty": 10, "price": 4},
        {"productId": product("01"), "qty": 1, "price": 8},
    ]
    order_id = (await world.api.post("/v2/order", json={"products": lines})).json()["orderId"]
    world.pass_time(11)
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")
    few = await world.bought("08", 9, line={"offerId": offer("08")})
    world.pass_time(11)
    assert (await world.give_back(few)).status_code == 200
