from tests.unit.sandbox_kinguin.simulated_supplier import EVERY_CALL, World, kind, product


async def test_k1_the_api_is_also_at_the_root(world: World) -> None:
    assert (await world.api.get("http://kinguin/v1/balance")).json() == {"balance": 5000.0}


async def test_k2_the_key_comes_in_either_header(world: World) -> None:
    bearer = {"X-Api-Key": "", "Authorization": "Bearer the-key"}
    assert (await world.api.get("/v1/balance", headers=bearer)).status_code == 200
    for wrong in ({"X-Api-Key": "other"}, {"X-Api-Key": ""}, {"X-Api-Key": "", "Authorization": "Basic the-key"}):
        assert kind(await world.api.get("/v1/balance", headers=wrong)) == (401, "Authorization")


async def test_k3_a_401_has_a_type_where_others_have_a_title(world: World) -> None:
    refused = (await world.api.get("/v1/balance", headers={"X-Api-Key": "other"})).json()
    assert "type" in refused
    assert "title" not in refused
    assert "title" in (await world.api.get("/v1/order/none")).json()


async def test_k4_without_a_billing_address_orders_fail(world: World) -> None:
    await world.fault("no_billing_address", count=1)
    assert kind(await world.order()) == (422, "OrderFailed")
    assert await world.sold() == {}
    await world.bought()


async def test_k5_money_is_granted_by_a_person_and_not_over_the_api(world: World) -> None:
    for path in ("/v1/balance", "/v2/balance"):
        assert (await world.api.post(path, json={"balance": 10})).status_code in {404, 405}
    granted = await world.control.post("/balance", json={"add": "100.00"})
    assert granted.json() == {"balance": "5100.00"}
    assert (await world.api.get("/v1/balance")).json() == {"balance": 5100.0}
    history = (await world.control.get("/ledger")).json()["balance_history"]
    assert [(entry["reason"], entry["amount"]) for entry in history] == [("opening", "5000.00"), ("control", "100.00")]


async def test_k6_nobody_at_a_strange_address_is_let_in(world: World) -> None:
    await world.fault("block_address")
    for method, path in EVERY_CALL:
        assert kind(await world.api.request(method, path, json={})) == (403, "Http")
    await world.control.delete("/faults")
    assert (await world.api.get("/v1/balance")).status_code == 200


async def test_k7_calling_too_often_is_429_and_then_a_block(world: World) -> None:
    await world.fault("calls_per_second", limit=3, strikes=2, seconds=30, retry_after=7)

    async def statuses(count: int) -> list[int]:
        return [(await world.api.get("/v1/balance")).status_code for _ in range(count)]

    assert await statuses(4) == [200, 200, 200, 429]
    world.clock.now += 1
    assert await statuses(3) == [200, 200, 200]
    refused = await world.api.get("/v1/balance")
    assert (kind(refused), refused.headers["Retry-After"]) == ((429, "Http"), "7")
    assert await statuses(3) == [429, 403, 403]
    world.clock.now += 29
    assert await statuses(1) == [403]
    world.clock.now += 1
    assert await statuses(1) == [200]
    counts = (await world.control.get("/requests")).json()
    assert (counts["too_many"], counts["blocks"]) == (3, 1)


async def test_k7_a_call_that_was_too_much_bought_nothing(world: World) -> None:
    await world.fault("calls_per_second", limit=1)
    assert [(await world.order()).status_code for _ in range(3)] == [201, 429, 429]
    assert await world.sold() == {product("01"): 1}
