from tests.unit.sandbox_kinguin.asked import accept, line, refusal
from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, product


def test_k34_a_pre_order_has_no_key_type() -> None:
    accept(line("07"))
    assert refusal(line("07", keyType="text")).kind == "Preorder"


def test_k35_one_pre_order_at_a_time() -> None:
    assert refusal(line("07", qty=2)).kind == "Preorder"


def test_k36_a_pre_order_is_alone() -> None:
    assert refusal(line("07"), line("01")).kind == "Preorder"
    assert refusal(line("01"), line("07")).kind == "Preorder"


async def test_k37_k39_a_pre_order_waits_for_its_release(world: World) -> None:
    order = (await world.order("07")).json()
    assert (order["isPreorder"], order["preorderReleaseDate"]) == (True, "2031-03-14")
    assert order["products"][0]["releaseDate"] == "2031-03-14"
    world.pass_time(1000)
    assert await world.status(order["orderId"]) == "processing"
    world.pass_time(5 * 365 * 86_400)
    assert await world.status(order["orderId"]) == "completed"
    yes = (await world.api.get("/v1/order", params={"isPreorder": "yes"})).json()["item_count"]
    assert (yes, (await world.api.get("/v1/order", params={"isPreorder": "no"})).json()["item_count"]) == (1, 0)


async def test_k38_a_pre_order_is_not_returnable_before_or_after_its_release(world: World) -> None:
    order_id = await world.bought("07")
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")
    await world.control.post("/release")
    world.pass_time(1)
    assert kind(await world.give_back(order_id)) == (422, "OrderNotSupported")


async def test_k37_k39_the_release_may_come_nearer_also_for_what_is_ordered(world: World) -> None:
    before = await world.bought("07")
    near = await world.control.post("/release-date", json={"product_id": product("07"), "seconds": 60})
    date = near.json()["release_date"]
    shown = (await world.api.get(f"/v2/products/{product('07')}")).json()
    assert (shown["isPreorder"], shown["releaseDate"], shown["offers"][0]["releaseDate"]) == (True, date, date)
    after = await world.bought("07")
    for order_id in (before, after):
        assert (await world.api.get(f"/v1/order/{order_id}")).json()["preorderReleaseDate"] == date
    world.pass_time(50)
    assert await world.status(before) == await world.status(after) == "processing"
    world.pass_time(15)
    assert await world.status(before) == await world.status(after) == "completed"


async def test_k39_a_release_may_be_put_off(world: World) -> None:
    order_id = await world.bought("07")
    for wrong in (
        {"product_id": product("01"), "seconds": 1},
        {"product_id": product("07")},
        {"product_id": product("07"), "release_date": "soon"},
    ):
        assert (await world.control.post("/release-date", json=wrong)).status_code == 400
    await world.control.post("/release-date", json={"product_id": product("07"), "release_date": "2040-01-01"})
    world.pass_time(5 * 365 * 86_400)
    assert await world.status(order_id) == "processing"
    await world.control.post("/reset")
    assert (await world.api.get(f"/v2/products/{product('07')}")).json()["releaseDate"] == "2031-03-14"
