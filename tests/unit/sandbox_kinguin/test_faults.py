import pytest
from sandbox.kinguin.faults import Faults
from sandbox.kinguin.mischief import Rule

from tests.unit.sandbox_kinguin.simulated_supplier import World


async def test_a_status_rule_answers_instead(world: World) -> None:
    await world.fault("status", operation="getBalance", status=429, kind="Http", retry_after=7, count=1)
    bad = await world.api.get("/v1/balance")
    assert (bad.status_code, bad.json()["kind"], bad.headers["Retry-After"]) == (429, "Http", "7")
    assert (await world.api.get("/v1/balance")).status_code == 200


async def test_a_status_may_come_after_the_order_was_taken(world: World) -> None:
    await world.fault("status", operation="placeOrder", status=502, when="after", count=1)
    assert (await world.order(orderExternalId="mine")).status_code == 502
    found = (await world.api.get("/v1/order", params={"orderExternalId": "mine"})).json()
    assert found["item_count"] == 1


async def test_a_lagging_search_hides_new_orders_only_from_searches(world: World) -> None:
    await world.fault("search_lag", seconds=60, count=1)
    order_id = await world.bought(orderExternalId="mine")

    async def found() -> int:
        return int((await world.api.get("/v1/order", params={"orderExternalId": "mine"})).json()["item_count"])

    assert await found() == 0
    assert await world.status(order_id) == "processing"
    world.clock.now += 60
    assert await found() == 1


@pytest.mark.parametrize(
    ("action", "status", "kind"),
    [
        ("lock", 423, "ResourceLock"),
        ("out_of_stock", 422, "ProductUnavailable"),
        ("insufficient_balance", 422, "InsufficientBalance"),
    ],
)
async def test_rules_refuse_and_sell_nothing(world: World, action: str, status: int, kind: str) -> None:
    await world.fault(action, count=1)
    refused = await world.order()
    assert (refused.status_code, refused.json()["kind"]) == (status, kind)
    assert (await world.control.get("/ledger")).json()["totals"]["orders"] == 0
    await world.bought()


async def test_out_of_stock_may_mean_one_product(world: World) -> None:
    await world.fault("out_of_stock", product_id="65a0c1d2e3f4051627380002")
    await world.bought("01")
    assert (await world.order("02")).status_code == 422


async def test_canceled_orders_are_paid_back(world: World) -> None:
    await world.fault("cancel", count=1)
    order_id = await world.bought(qty=2)
    world.pass_time(11)
    assert await world.status(order_id) == "canceled"
    assert await world.key_statuses(order_id) == ["CANCELED"] * 2
    assert (await world.api.get("/v1/balance")).json() == {"balance": 5000.0}


async def test_an_order_may_be_canceled_after_a_part(world: World) -> None:
    await world.fault("cancel", count=1)
    await world.fault("partial", keys=1, count=1)
    order_id = await world.bought(qty=3)
    world.pass_time(25)
    assert await world.status(order_id) == "canceled"
    assert await world.key_statuses(order_id) == ["DELIVERED", "CANCELED", "CANCELED"]
    assert len((await world.api.get(f"/v2/order/{order_id}/keys")).json()) == 1
    assert (await world.api.get("/v1/balance")).json() == {"balance": 4992.51}


async def test_rules_are_listed_and_deleted_by_action(world: World) -> None:
    await world.fault("lock", operation="getOrder", count=2)
    await world.fault("hold")
    await world.api.get("/v1/order/none")
    (lock, hold) = (await world.control.get("/faults")).json()["rules"]
    assert (lock["action"], lock["hits"], hold["hits"]) == ("lock", 1, 0)
    left = (await world.control.delete("/faults", params={"action": "lock"})).json()["rules"]
    assert [rule["action"] for rule in left] == ["hold"]
    assert (await world.control.delete("/faults")).json() == {"rules": []}


def test_luck_is_the_same_for_the_same_seed() -> None:
    def days(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add([Rule(action="lock", probability=0.3)])
        return [faults.take("lock", "placeOrder") is not None for _ in range(200)]

    assert days(1) == days(1)
    assert days(1) != days(2)
    assert 30 < sum(days(1)) < 90
