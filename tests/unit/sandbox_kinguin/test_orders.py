import base64
import binascii

import pytest

from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, product


async def test_k41_key_statuses_are_seen_in_the_order(world: World) -> None:
    await world.fault("partial", keys=1, seconds=50)
    order_id = await world.bought(qty=3)
    assert await world.key_statuses(order_id) == ["PENDING"] * 3
    world.pass_time(11)
    assert await world.key_statuses(order_id) == ["DELIVERED", "PROCESSING", "PROCESSING"]
    assert len((await world.api.get(f"/v2/order/{order_id}/keys")).json()) == 1  # K45
    world.pass_time(50)
    assert await world.key_statuses(order_id) == ["DELIVERED"] * 3


async def test_k42_k48_other_versions_and_dispatch_are_gone(world: World) -> None:
    assert kind(await world.api.post("/v1/order", json={})) == (405, "Http")
    assert kind(await world.api.get("/v2/order/x")) == (404, "Http")
    assert kind(await world.api.post("/v1/order/dispatch", json={})) == (405, "Http")


async def test_k43_an_order_is_found_by_its_external_id(world: World) -> None:
    ids = [await world.bought(orderExternalId=f"mine-{number}") for number in range(3)]
    found = (await world.api.get("/v1/order", params={"orderExternalId": "mine-1"})).json()
    assert [order["orderId"] for order in found["results"]] == [ids[1]]
    everything = (await world.api.get("/v1/order")).json()
    assert [order["orderId"] for order in everything["results"]] == ids[::-1]
    for nothing in ({"orderExternalId": ""}, {"status": "completed"}, {"productId": product("02")}, {"orderId": "x"}):
        assert (await world.api.get("/v1/order", params=nothing)).json() == {"results": [], "item_count": 0}
    assert kind(await world.api.get("/v1/order", params={"status": "lost"})) == (400, "ConstraintViolation")


@pytest.mark.parametrize(
    ("nn", "content_type", "magic"),
    [("03", "image/png", b"\x89PNG"), ("04", "image/jpeg", b"\xff\xd8\xff"), ("05", "image/gif", b"GIF87a")],
)
async def test_k46_picture_keys_are_files_in_base64(world: World, nn: str, content_type: str, magic: bytes) -> None:
    order_id = await world.bought(nn)
    world.pass_time(11)
    (key,) = (await world.api.get(f"/v2/order/{order_id}/keys")).json()
    assert key["type"] == content_type
    assert base64.b64decode(key["serial"], validate=True).startswith(magic)


async def test_k47_each_key_names_its_product_and_offer(world: World) -> None:
    body = {"products": [{"productId": product(nn), "qty": 2, "price": 50} for nn in ("01", "03")]}
    order_id = (await world.api.post("/v2/order", json=body)).json()["orderId"]
    world.pass_time(11)
    keys = (await world.api.get(f"/v2/order/{order_id}/keys")).json()
    assert sorted((key["productId"], key["offerId"][-2:]) for key in keys) == [
        *[(product("01"), "01")] * 2,
        *[(product("03"), "03")] * 2,
    ]


async def test_k40_an_order_has_one_of_four_statuses(world: World) -> None:
    seen = set()
    returned = await world.bought()
    seen.add(await world.status(returned))
    world.pass_time(11)
    seen.add(await world.status(returned))
    await world.give_back(returned)
    world.pass_time(25)
    seen.add(await world.status(returned))
    canceled = await world.bought()
    await world.control.post("/cancel", json={"order_id": canceled})
    world.pass_time(1)
    seen.add(await world.status(canceled))
    assert seen == {"processing", "completed", "refunded", "canceled"}
    for status in seen:
        assert (await world.api.get("/v1/order", params={"status": status})).status_code == 200


async def test_k41_a_key_has_one_of_six_statuses(world: World) -> None:
    await world.fault("partial", keys=2, seconds=30)
    order_id = await world.bought(qty=3)
    seen = set(await world.key_statuses(order_id))
    world.pass_time(11)
    seen.update(await world.key_statuses(order_id))
    assert (await world.control.post("/refund", json={"order_id": order_id, "keys": 1})).json() == {"taken": 1}
    seen.update(await world.key_statuses(order_id))
    await world.control.post("/cancel", json={"order_id": order_id})
    world.pass_time(1)
    assert await world.key_statuses(order_id) == ["REFUNDED", "DELIVERED", "CANCELED"]
    seen.update(await world.key_statuses(order_id))
    assert seen == {"PENDING", "PROCESSING", "DELIVERED", "RETURNED", "REFUNDED", "CANCELED"}
    assert len(await world.keys(order_id)) == 1


async def test_k44_pages_may_be_shorter_than_the_limit_although_more_follows(world: World) -> None:
    order_id = await world.bulk(230)
    await world.fault("pages_short", keys=60)
    pages = [await world.keys(order_id, limit=100, page=page) for page in range(1, 6)]
    assert [len(page) for page in pages] == [60, 60, 60, 50, 0]
    assert len({key["id"] for page in pages for key in page}) == 230


async def test_k44_pages_may_be_longer_than_the_limit(world: World) -> None:
    order_id = await world.bulk(230)
    await world.fault("pages_long")
    pages = [await world.keys(order_id, limit=100, page=page) for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [200, 30, 0]
    assert len({key["id"] for page in pages for key in page}) == 230


async def test_k44_pages_may_overlap(world: World) -> None:
    order_id = await world.bulk(230)
    await world.fault("pages_overlap", keys=20)
    pages = [await world.keys(order_id, limit=100, page=page) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [100, 100, 70, 0]
    assert [key["id"] for key in pages[1][:20]] == [key["id"] for key in pages[0][-20:]]
    assert len({key["id"] for page in pages for key in page}) == 230


async def test_k44_pages_may_go_wrong_now_and_then(world: World) -> None:
    order_id = await world.bulk(30)
    await world.fault("pages_short", keys=7, count=1)
    assert [len(await world.keys(order_id, limit=100)) for _ in range(2)] == [7, 30]


async def test_k45_keys_can_be_fetched_while_the_order_is_processing(world: World) -> None:
    await world.fault("partial", keys=2, seconds=50)
    order_id = await world.bought(qty=5)
    assert await world.keys(order_id) == []
    world.pass_time(11)
    assert (await world.status(order_id), len(await world.keys(order_id))) == ("processing", 2)
    world.pass_time(55)
    assert (await world.status(order_id), len(await world.keys(order_id))) == ("completed", 5)


async def test_k46_a_content_type_may_be_none_of_the_four(world: World) -> None:
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    await world.fault("unknown_type", type="image/webp", count=1)
    assert [key["type"] for key in await world.keys(order_id)] == ["image/webp", "text/plain"]
    assert [key["type"] for key in await world.keys(order_id)] == ["text/plain", "text/plain"]


async def test_k46_a_picture_may_be_broken(world: World) -> None:
    order_id = await world.bought("03")
    world.pass_time(11)
    await world.fault("broken_picture", count=1)
    (broken,) = await world.keys(order_id)
    with pytest.raises(binascii.Error):
        base64.b64decode(broken["serial"], validate=True)
    (whole,) = await world.keys(order_id)
    base64.b64decode(whole["serial"], validate=True)


async def test_k47_a_key_of_another_product_may_be_among_them(world: World) -> None:
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    await world.fault("foreign_key")
    foreign, *ours = await world.keys(order_id)
    assert foreign["productId"] != product("01") == ours[0]["productId"]
    assert len(ours) == 2
    assert (await world.keys(order_id))[0] == foreign
    assert foreign["id"] not in (await world.control.get("/ledger")).text


async def test_one_serial_may_be_sold_twice_in_an_order(world: World) -> None:
    await world.fault("serial_twice", count=1)
    order_id = await world.bought(qty=3)
    world.pass_time(11)
    keys = await world.keys(order_id)
    assert len({key["id"] for key in keys}) == 3
    assert keys[0]["serial"] == keys[1]["serial"] != keys[2]["serial"]


async def test_one_serial_may_be_sold_twice_in_two_orders(world: World) -> None:
    first = await world.bought()
    world.pass_time(11)
    await world.fault("serial_twice", scope="orders", count=1)
    second = await world.bought(qty=2)
    world.pass_time(11)
    sold, (twin, other) = await world.keys(first), await world.keys(second)
    assert sold[0]["serial"] == twin["serial"] != other["serial"]
    assert sold[0]["id"] != twin["id"]


@pytest.mark.parametrize("word", ["processing", "on hold"])
async def test_a_status_may_flap_and_nothing_is_delivered_twice(world: World, word: str) -> None:
    await world.fault("flap", seconds=5, rounds=2, word=word, count=1)
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    keys = await world.keys(order_id)
    world.pass_time(30)
    statuses = [change.status for change in world.changes]
    assert statuses == ["completed", word, "completed", word, "completed"]
    times = [change.updated_at for change in world.changes]
    assert times == sorted(set(times))
    assert await world.keys(order_id) == keys
    assert await world.sold() == {product("01"): 2}


async def test_the_supplier_may_take_all_keys_back_without_being_asked(world: World) -> None:
    order_id = await world.bought("02", 8, price=6)
    world.pass_time(11)
    await world.control.post("/refund", json={"order_id": order_id})
    world.pass_time(1)
    assert (await world.status(order_id), int(await world.balance())) == ("refunded", 5000)
    assert (await world.control.post("/refund", json={"order_id": order_id})).json() == {"taken": 0}
    assert (await world.control.post("/cancel", json={"order_id": "none"})).status_code == 400
