from decimal import Decimal
from pathlib import Path

import pytest
from sandbox.kinguin.keypages import Window
from sandbox.kinguin.orders import OrderFilter
from sandbox.kinguin.plan import Circumstances, Flaps
from sandbox.kinguin.rules import Line, PlaceOrder
from sandbox.kinguin.supplier import Settings, open_supplier

from tests.unit.sandbox_kinguin.simulated_supplier import SteppingClock, World, kind, offer, product


async def test_k18_an_order_is_created_and_processed(world: World) -> None:
    response = await world.order(orderExternalId="mine")
    assert response.status_code == 201
    assert response.json()["status"] == "processing"
    assert response.json()["orderExternalId"] == "mine"


async def test_k22_the_price_asked_and_the_price_taken_differ(world: World) -> None:
    order = (await world.order("02", 8, 6)).json()
    assert [(line["offerId"][-2:], line["qty"]) for line in order["products"]] == [("02", 6), ("12", 2)]
    assert (order["requestTotalPrice"], order["totalPrice"], order["totalQty"]) == (48.0, 42.78, 8)
    assert kind(await world.order("01", price=7.48)) == (422, "ProductUnavailable")


async def test_k24_a_used_external_id_is_refused(world: World) -> None:
    await world.bought(orderExternalId="mine")
    again = await world.order(orderExternalId="mine")
    assert kind(again) == (422, "ConstraintViolation")
    assert "already used" in again.json()["detail"]
    assert (await world.control.get("/ledger")).json()["totals"]["orders"] == 1


async def test_k24_a_used_external_id_is_taken_where_a_rule_says_so(world: World) -> None:
    await world.bought(orderExternalId="mine")
    await world.fault("accept_duplicate_external_id", count=1)
    await world.bought(orderExternalId="mine")
    assert (await world.order(orderExternalId="mine")).status_code == 422
    found = (await world.api.get("/v1/order", params={"orderExternalId": "mine"})).json()
    assert found["item_count"] == 2


async def test_k25_the_account_pays_what_the_payment_price_says(world: World) -> None:
    order = (await world.order("02", 8, 6)).json()
    left = (await world.api.get("/v1/balance")).json()["balance"]
    assert Decimal(str(left)) == 5000 - Decimal(str(order["paymentPrice"]))
    await world.control.post("/balance", json={"balance": "5.00"})
    assert kind(await world.order("01")) == (422, "InsufficientBalance")
    assert (await world.api.get("/v1/balance")).json() == {"balance": 5.0}


async def test_the_same_seed_and_orders_give_the_same_keys(tmp_path: Path) -> None:
    def serials(folder: str, seed: int) -> list[object]:
        settings = Settings(tmp_path / folder, api_key="", webhook_secret="", seed=seed, fulfil_seconds=0)
        supplier = open_supplier(settings, post=None, clock=SteppingClock())
        change = supplier.desk.place(PlaceOrder((Line(product("06"), 9, Decimal(10)),)))
        supplier.deliveries.run_due()
        keys = supplier.desk.keys(change.order_id, Window(0, 100))
        supplier.store.close()
        return [change.order_id, *[key["serial"] for key in keys]]

    assert serials("one", 1) == serials("two", 1)
    assert not set(serials("three", 1)) & set(serials("four", 2))


async def test_k22_several_offers_serve_one_line_and_their_keys_say_which(world: World) -> None:
    order_id = await world.bought("0d", 9, price=3)
    world.pass_time(11)
    assert {key["offerId"] for key in await world.keys(order_id)} == {offer("0d")}
    await world.control.post("/stock", json={"offer_id": offer("0d"), "text": 4})
    order_id = await world.bought("0d", 9, price=3)
    world.pass_time(11)
    assert [key["offerId"] for key in await world.keys(order_id)] == [offer("0d")] * 4 + [offer("1d")] * 5


async def test_k25_what_is_charged_may_differ_from_the_price(world: World) -> None:
    await world.fault("charge_differs", amount="0.35", count=1)
    order = (await world.order("01", 2)).json()
    assert (order["totalPrice"], order["paymentPrice"]) == (14.98, 15.33)
    assert await world.balance() == Decimal("4984.67")
    assert (await world.api.get(f"/v1/order/{order['orderId']}")).json()["paymentPrice"] == 15.33
    world.pass_time(11)
    await world.give_back(order["orderId"])
    world.pass_time(25)
    assert await world.status(order["orderId"]) == "refunded"
    assert await world.balance() == 5000


async def test_k25_a_cancelation_after_a_part_pays_back_the_prices_of_the_rest(world: World) -> None:
    await world.fault("charge_differs", amount="-0.40", count=1)
    await world.fault("partial", keys=1, count=1)
    await world.fault("cancel", count=1)
    order_id = await world.bought(qty=3)
    world.pass_time(25)
    assert await world.status(order_id) == "canceled"
    assert await world.balance() == 5000 - Decimal("7.49") + Decimal("0.40")


async def test_k25_the_payment_price_may_be_a_string(world: World) -> None:
    await world.fault("payment_price_text", operation="getOrder", count=1)
    order = (await world.order("02", 2, 5.5)).json()
    shown = [(await world.api.get(f"/v1/order/{order['orderId']}")).json()["paymentPrice"] for _ in range(2)]
    assert [order["paymentPrice"], *shown] == [10.4, "10.40", 10.4]


async def test_an_order_may_be_taken_long_after_its_buyer_gave_up(world: World) -> None:
    await world.fault("commit_late", seconds=120, count=1)
    with pytest.raises(ConnectionResetError):
        await world.order(orderExternalId="late")
    world.pass_time(119)
    assert await world.found("late") == []
    assert (await world.control.get("/ledger")).json()["late_orders"] == 1
    world.pass_time(2)
    (order_id,) = await world.found("late")
    assert [(change.order_id, change.status) for change in world.changes] == [(order_id, "processing")]
    world.pass_time(11)
    assert len(await world.keys(order_id)) == 1
    assert (await world.control.get("/ledger")).json()["late_orders"] == 0


async def test_a_late_order_is_lost_where_its_reference_is_used_meanwhile(world: World) -> None:
    await world.fault("commit_late", seconds=5, count=1)
    with pytest.raises(ConnectionResetError):
        await world.order(orderExternalId="mine")
    order_id = await world.bought(orderExternalId="mine")
    world.pass_time(20)
    assert await world.found("mine") == [order_id]
    assert await world.sold("mine") == {product("01"): 1}


async def test_a_late_order_is_a_second_one_where_references_may_come_again(world: World) -> None:
    await world.fault("accept_duplicate_external_id")
    await world.fault("commit_late", seconds=5, count=1)
    with pytest.raises(ConnectionResetError):
        await world.order(orderExternalId="mine")
    await world.bought(orderExternalId="mine")
    world.pass_time(20)
    assert len(await world.found("mine")) == 2
    assert await world.sold("mine") == {product("01"): 2}


async def test_a_late_order_may_lag_in_the_search_and_survives_a_restart(tmp_path: Path) -> None:
    clock = SteppingClock()
    settings = Settings(tmp_path, api_key="", webhook_secret="", fulfil_seconds=1)
    supplier = open_supplier(settings, post=None, clock=clock)
    order = PlaceOrder((Line(product("02"), 2, Decimal("5.50"), offer_id=offer("02")),), "mine")
    circumstances = Circumstances(search_lag_seconds=60, charge="0.10", flaps=Flaps(1, 1.0, "on hold"))
    supplier.late.take(order, circumstances, seconds=30)
    supplier.store.close()

    again = open_supplier(settings, post=None, clock=clock)
    clock.now += 30
    (change,) = again.deliveries.run_due()
    assert again.desk.search(OrderFilter(external_id="mine"), page=1, limit=25) == ([], 0)
    clock.now += 60
    ((found,), _) = again.desk.search(OrderFilter(external_id="mine"), page=1, limit=25)
    assert (found["orderId"], found["paymentPrice"]) == (change.order_id, Decimal("10.50"))
    again.store.close()
