import base64

import pytest

from tests.unit.sandbox_kinguin.simulated_supplier import World, product


async def sold(world: World, order_id: str) -> list[dict[str, str]]:
    world.pass_time(11)
    keys: list[dict[str, str]] = (await world.api.get(f"/v2/order/{order_id}/keys")).json()
    return keys


async def test_the_ledger_tells_what_was_sold(world: World) -> None:
    order_id = await world.bought(qty=2, orderExternalId="mine")
    keys = await sold(world, order_id)
    ledger = (await world.control.get("/ledger", params={"external_id": "mine"})).json()
    (order,) = ledger["orders"]
    assert (order["order_id"], order["external_id"], order["status"]) == (order_id, "mine", "completed")
    assert [(key["id"], key["serial"], key["type"]) for key in order["keys"]] == [
        (key["id"], key["serial"], key["type"]) for key in keys
    ]
    assert [entry["amount"] for entry in ledger["balance_history"]] == ["5000.00", "-14.98"]
    assert ledger["totals"]["keys_sold"] == ledger["totals"]["keys_delivered"] == 2
    assert (await world.control.get("/ledger", params={"order_id": "other"})).json()["orders"] == []


async def test_the_ledger_counts_by_prefix_and_product(world: World) -> None:
    for external_id, nn, qty in (("kf-1-a", "01", 2), ("kf-1-b", "01", 3), ("kf-1-b2", "03", 1), ("kf-2%", "01", 4)):
        await world.bought(nn, qty, orderExternalId=external_id)
    await world.bought()
    assert await world.sold("kf-1") == {product("01"): 5, product("03"): 1}
    assert await world.sold("kf-2%") == {product("01"): 4}
    assert await world.sold("kf-_") == await world.sold("KF") == {}
    assert await world.sold() == {product("01"): 10, product("03"): 1}
    (order,) = (await world.control.get("/ledger", params={"prefix": "kf-1-b2"})).json()["orders"]
    assert (order["requested"], order["total"], order["paid"]) == ("50", "11.90", "11.90")
    (line,) = order["lines"]
    assert (line["product_id"], line["qty"], line["price"], line["request_price"]) == (product("03"), 1, "11.90", "50")


async def test_planted_keys_are_sold_first_and_once(world: World) -> None:
    for serial in ("PLANT-1", "PLANT-2"):
        body = {"product_id": product("01"), "type": "text/plain", "serial": serial}
        assert (await world.control.post("/plant", json=body)).status_code == 201
    serials = [key["serial"] for key in await sold(world, await world.bought(qty=3))]
    assert serials[:2] == ["PLANT-1", "PLANT-2"]
    assert not serials[2].startswith("PLANT")


async def test_a_planted_picture_is_drawn_and_never_sold_as_text(world: World) -> None:
    body = {"product_id": product("06"), "type": "image/gif", "shown": "HELLO"}
    planted = (await world.control.post("/plant", json=body)).json()
    assert base64.b64decode(planted["serial"]).startswith(b"GIF")
    (text,) = await sold(world, await world.bought("06", line={"keyType": "text"}))
    assert text["type"] == "text/plain"
    (picture,) = await sold(world, await world.bought("06"))
    assert (picture["type"], picture["serial"]) == ("image/gif", planted["serial"])


async def test_held_orders_wait_for_their_release(world: World) -> None:
    await world.fault("hold", count=1)
    held, other = await world.bought(), await world.bought()
    world.pass_time(1000)
    assert [await world.status(held), await world.status(other)] == ["processing", "completed"]
    assert (await world.control.post("/release", json={"order_id": held})).json() == {"released": 1}
    world.pass_time(1)
    assert await world.status(held) == "completed"


async def test_a_release_brings_pre_orders_too(world: World) -> None:
    order_id = await world.bought("07")
    await world.control.post("/release")
    world.pass_time(1)
    assert await world.status(order_id) == "completed"


async def test_stock_and_price_can_be_changed(world: World) -> None:
    body = {"offer_id": "65b0c1d2e3f4051627380009", "text": 1, "price": "2.00"}
    assert (await world.control.post("/stock", json=body)).status_code == 200
    assert (await world.order("09", price=2)).json()["totalPrice"] == 2.0


async def test_the_catalogue_shows_what_is_sold_out(world: World) -> None:
    products = (await world.control.get("/catalogue")).json()["products"]
    assert len(products) == 13
    assert product("09") in {entry["productId"] for entry in products}


async def test_requests_are_counted(world: World) -> None:
    await world.bought()
    await world.api.get("/v1/order/none")
    counts = (await world.control.get("/requests")).json()
    assert (counts["operations"]["placeOrder"], counts["operations"]["getOrder"], counts["total"]) == (1, 1, 2)
    assert counts["answers"] == {"placeOrder": {"201": 1}, "getOrder": {"404": 1}}
    assert counts["peak_per_second"] == 2


async def test_a_reset_forgets_orders_and_never_reuses_a_key(world: World) -> None:
    order_id = await world.bought(orderExternalId="mine")
    (before,) = await sold(world, order_id)
    await world.fault("lock")
    await world.control.post("/reset")
    assert (await world.control.get("/faults")).json() == {"rules": []}
    again = await world.bought(orderExternalId="mine")
    (after,) = await sold(world, again)
    assert again != order_id
    assert before["serial"] != after["serial"]
    assert (await world.control.get("/ledger")).json()["totals"]["orders"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/faults", {"action": "explode"}),
        ("/faults", {"action": "delay"}),
        ("/faults", {"action": "status", "status": 200}),
        ("/faults", {"action": "lock", "operation": "fly"}),
        ("/faults", {"action": "lock", "times": 2}),
        ("/faults", [{"action": "lock"}] * 101),
        ("/plant", {"product_id": "x", "serial": "y"}),
        ("/plant", {"product_id": product("01")}),
        ("/plant", {"product_id": product("01"), "type": "image/bmp", "serial": "y"}),
        ("/plant", {"product_id": product("03"), "type": "image/png"}),
        ("/plant", {"product_id": product("03"), "type": "image/png", "serial": "?"}),
        ("/balance", {}),
        ("/balance", {"balance": "1", "add": "1"}),
        ("/stock", {"offer_id": "x"}),
        ("/webhooks/flood", {"count": 0}),
        ("/refund", {"order_id": "x", "keys": 0}),
    ],
)
async def test_wrong_bodies_are_told(world: World, path: str, body: object) -> None:
    response = await world.control.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert (await world.control.post(path, content=b"{")).status_code == 400
