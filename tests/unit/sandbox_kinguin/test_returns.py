import httpx

from tests.unit.sandbox_kinguin.simulated_supplier import World


async def give_back(world: World, order_id: str) -> httpx.Response:
    return await world.api.post(f"/v2/order/{order_id}/keys/return")


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["kind"]


async def test_k49_one_return_per_order(world: World) -> None:
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    assert len((await give_back(world, order_id)).json()) == 2
    assert kind(await give_back(world, order_id)) == (422, "OrderNotSupported")


async def test_k50_nothing_that_was_claimed(world: World) -> None:
    order_id = await world.bought()
    world.pass_time(11)
    await world.control.post("/claim", json={"order_id": order_id})
    assert kind(await give_back(world, order_id)) == (422, "NoKeysToReturn")


async def test_k50_downloading_claims_where_a_rule_says_so(world: World) -> None:
    await world.fault("claim_on_fetch")
    order_id = await world.bought()
    world.pass_time(11)
    await world.api.get(f"/v2/order/{order_id}/keys")
    assert kind(await give_back(world, order_id)) == (422, "NoKeysToReturn")


async def test_k50_nothing_older_than_a_day(world: World) -> None:
    order_id = await world.bought()
    world.pass_time(11)
    world.clock.now += 24 * 3600 + 1
    assert kind(await give_back(world, order_id)) == (422, "NoKeysToReturn")


async def test_k33_k50_no_order_with_wholesale(world: World) -> None:
    order_id = await world.bought("08", 10, line={"offerId": "65b0c1d2e3f4051627380008"})
    world.pass_time(11)
    assert kind(await give_back(world, order_id)) == (422, "OrderNotSupported")


async def test_k38_k50_no_pre_order(world: World) -> None:
    order_id = await world.bought("07")
    assert kind(await give_back(world, order_id)) == (422, "OrderNotSupported")


async def test_k51_keys_that_come_later_go_back_too(world: World) -> None:
    await world.fault("partial", keys=1, seconds=50)
    order_id = await world.bought(qty=3)
    world.pass_time(11)
    assert len((await give_back(world, order_id)).json()) == 1
    world.pass_time(25)
    assert await world.key_statuses(order_id) == ["REFUNDED", "PROCESSING", "PROCESSING"]
    world.pass_time(60)
    assert await world.key_statuses(order_id) == ["REFUNDED"] * 3
    assert await world.status(order_id) == "refunded"


async def test_k52_the_answer_says_delivered_and_the_refund_comes_later(world: World) -> None:
    order_id = await world.bought("02", 2)
    world.pass_time(11)
    assert {key["status"] for key in (await give_back(world, order_id)).json()} == {"DELIVERED"}
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
    assert kind(await give_back(world, order_id)) == (422, "NoKeysToReturn")
    assert kind(await give_back(world, "none")) == (404, "OrderNotFound")
