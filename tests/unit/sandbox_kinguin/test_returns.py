from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, product


async def test_k49_one_return_per_order(world: World) -> None:
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    assert len((await world.give_back(order_id)).json()) == 2
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")


async def test_k50_nothing_that_was_claimed(world: World) -> None:
    order_id = await world.bought()
    world.pass_time(11)
    await world.control.post("/claim", json={"order_id": order_id})
    assert kind(await world.give_back(order_id)) == (422, "NoKeysToReturn")


async def test_k50_downloading_claims_where_a_rule_says_so(world: World) -> None:
    await world.fault("claim_on_fetch")
    order_id = await world.bought()
    world.pass_time(11)
    await world.api.get(f"/v2/order/{order_id}/keys")
    assert kind(await world.give_back(order_id)) == (422, "NoKeysToReturn")


async def test_k50_nothing_older_than_a_day(world: World) -> None:
    order_id = await world.bought()
    world.pass_time(11)
    world.clock.now += 24 * 3600 + 1
    assert kind(await world.give_back(order_id)) == (422, "NoKeysToReturn")


async def test_k33_k50_no_order_with_wholesale(world: World) -> None:
    order_id = await world.bought("08", 10, line={"offerId": "65b0c1d2e3f4051627380008"})
    world.pass_time(11)
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")


async def test_k38_k50_no_pre_order(world: World) -> None:
    order_id = await world.bought("07")
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")


async def test_k51_keys_that_come_later_go_back_too(world: World) -> None:
    await world.fault("partial", keys=1, seconds=50)
    order_id = await world.bought(qty=3)
    world.pass_time(11)
    assert len((await world.give_back(order_id)).json()) == 1
    world.pass_time(25)
    assert await world.key_statuses(order_id) == ["REFUNDED", "PROCESSING", "PROCESSING"]
    world.pass_time(60)
    assert await world.key_statuses(order_id) == ["REFUNDED"] * 3
    assert await world.status(order_id) == "refunded"


async def test_k52_the_answer_says_delivered_and_the_refund_comes_later(world: World) -> None:
    order_id = await world.bought("02", 2)
    world.pass_time(11)
    assert {key["status"] for key in (await world.give_back(order_id)).json()} == {"DELIVERED"}
    world.pass_time(11)
    assert await world.key_statuses(order_id) == ["RETURNED"] * 2
    assert (await world.api.get(f"/v2/order/{order_id}/keys")).json() == []
    world.pass_time(11)
    assert await world.key_statuses(order_id) == ["REFUNDED"] * 2
    assert (await world.api.get("/v1/balance")).json() == {"balance": 5000.0}


async def test_k53_a_canceled_order_has_no_keys_to_return(world: World) -> None:
    await world.fault("cancel")
    order_id = await world.bought()
    world.pass_time(11)
    assert kind(await world.give_back(order_id)) == (422, "NoKeysToReturn")
    assert kind(await world.give_back("none")) == (404, "OrderNotFound")


async def test_k51_all_keys_that_can_go_back_go_back_together(world: World) -> None:
    body = {"products": [{"productId": product(nn), "qty": 2, "price": 50} for nn in ("01", "03")]}
    order_id = (await world.api.post("/v2/order", json=body)).json()["orderId"]
    world.pass_time(11)
    ids = {key["id"] for key in await world.keys(order_id)}
    assert {key["id"] for key in (await world.give_back(order_id)).json()} == ids
    world.pass_time(25)
    assert await world.key_statuses(order_id) == ["REFUNDED"] * 4


async def test_k51_a_return_may_be_asked_for_before_any_key_came(world: World) -> None:
    order_id = await world.bought(qty=2)
    assert (await world.give_back(order_id)).json() == []
    world.pass_time(60)
    assert (await world.key_statuses(order_id), int(await world.balance())) == (["REFUNDED"] * 2, 5000)


async def test_k52_a_return_may_take_long_and_its_refund_longer(world: World) -> None:
    await world.fault("return_late", seconds=100, count=1)
    await world.fault("refund_late", seconds=1000, count=1)
    order_id = await world.bought()
    world.pass_time(11)
    await world.give_back(order_id)
    world.pass_time(105)
    assert await world.key_statuses(order_id) == ["DELIVERED"]
    world.pass_time(10)
    assert await world.key_statuses(order_id) == ["RETURNED"]
    world.pass_time(1000)
    assert await world.key_statuses(order_id) == ["RETURNED"]
    world.pass_time(30)
    assert (await world.key_statuses(order_id), int(await world.balance())) == (["REFUNDED"], 5000)


async def test_k53_what_the_supplier_took_back_itself_is_no_key_to_return(world: World) -> None:
    order_id = await world.bought()
    world.pass_time(11)
    await world.control.post("/refund", json={"order_id": order_id})
    assert kind(await world.give_back(order_id)) == (422, "NoKeysToReturn")


async def test_the_ledger_tells_what_was_given_back(world: World) -> None:
    order_id = await world.bought(qty=2, orderExternalId="mine")
    world.pass_time(11)
    await world.give_back(order_id)
    world.pass_time(11)
    ledger = (await world.control.get("/ledger", params={"prefix": "min"})).json()
    assert ledger["products"][product("01")] == {"sold": 2, "delivered": 2, "returned": 2, "refunded": 0, "canceled": 0}
    assert ledger["orders"][0]["return_requested_at"] is not None
    world.pass_time(11)
    totals = (await world.control.get("/ledger")).json()["totals"]
    assert (totals["keys_sold"], totals["keys_returned"], totals["keys_refunded"]) == (2, 0, 2)
