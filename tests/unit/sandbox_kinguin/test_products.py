import pytest
from sandbox.kinguin.catalogue import PRODUCTS

from tests.unit.sandbox_kinguin.simulated_supplier import World, kind, product


async def test_k8_what_is_sold_out_is_not_there(world: World) -> None:
    assert (await world.api.get(f"/v2/products/{product('01')}")).status_code == 200
    for nn in ("09", "ff"):
        assert kind(await world.api.get(f"/v2/products/{product(nn)}")) == (404, "ProductUnavailable")
        assert kind(await world.order(nn)) == (422, "ProductUnavailable")
    await world.bought("0c", 5)
    assert kind(await world.order("0c")) == (422, "ProductUnavailable")
    assert (await world.api.get(f"/v2/products/{product('0c')}")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/products", "/v1/order"])
async def test_k9_pages_have_25_entries_by_default_and_100_at_most(world: World, path: str) -> None:
    assert (await world.api.get(path, params={"limit": 100})).status_code == 200
    for wrong in ("101", "0", "-1", "x", "", "1.0", "99999999999999999999999"):
        assert kind(await world.api.get(path, params={"limit": wrong})) == (400, "ConstraintViolation")
    assert (await world.api.get(path, params={"page": "9" * 40})).json()["results"] == []
    assert kind(await world.api.get(path, params={"page": ["1", "2"]})) == (400, "ConstraintViolation")


async def test_k9_pages_follow_one_another(world: World) -> None:
    pages = [(await world.api.get("/v1/products", params={"limit": 5, "page": page})).json() for page in (1, 2, 3)]
    found = [entry["productId"] for page in pages for entry in page["results"]]
    assert found == [each.product_id for each in PRODUCTS if each.product_id != product("09")]
    assert {page["item_count"] for page in pages} == {12}


async def test_k10_names_are_searched_from_three_characters_on(world: World) -> None:
    assert kind(await world.api.get("/v1/products", params={"name": "La"})) == (400, "ConstraintViolation")
    (found,) = (await world.api.get("/v1/products", params={"name": "lantern"})).json()["results"]
    assert found["productId"] == product("01")


async def test_k11_sorting_knows_two_fields(world: World) -> None:
    down = (await world.api.get("/v1/products", params={"sortBy": "kinguinId", "sortType": "desc"})).json()["results"]
    ids = [entry["kinguinId"] for entry in down]
    assert ids == sorted(ids, reverse=True)
    typo = (await world.api.get("/v1/products", params={"sortBy": "kingiunId"})).json()["results"]
    assert [entry["kinguinId"] for entry in typo] == ids[::-1]
    await world.bought("05")
    world.clock.now += 10
    await world.bought("03")
    last: dict[str, str | int] = {"sortBy": "updatedAt", "sortType": "desc", "limit": 2}
    changed = (await world.api.get("/v1/products", params=last)).json()["results"]
    assert changed[0]["productId"] == product("03")
    assert kind(await world.api.get("/v1/products", params={"sortBy": "price"})) == (400, "ConstraintViolation")


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-21",
        "2026-09-21 13:46:39",
        "2026-09-21T13:46:39",
        "2026-09-21T13:46:39+00:00",
        "2026-09-21T13:46:39.500+00:00",
        "2026-09-21T13:46:39Z",
        "2026-09-21T13:46:39 00:00",
    ],
)
async def test_k12_dates_are_read_in_five_forms_and_without_their_plus(world: World, text: str) -> None:
    await world.bought()
    assert (await world.api.get("/v1/order", params={"createdAtFrom": text})).json()["item_count"] == 1
    assert (await world.api.get("/v1/order", params={"createdAtTo": text})).json()["item_count"] == 0


async def test_k12_what_is_no_date_is_refused(world: World) -> None:
    for wrong in ("", "yesterday", "0001-01-01T00:00:00+23:59:59.9x"):
        response = await world.api.get("/v1/products", params={"updatedSince": wrong})
        assert kind(response) == (400, "ConstraintViolation")


async def test_k13_money_is_a_json_number(world: World) -> None:
    order = (await world.order("02", 2, 5.5)).json()
    assert order["paymentPrice"] == order["totalPrice"] == 10.4
    assert order["requestTotalPrice"] == 11.0


async def test_k14_promised_keys_count_but_are_not_available(world: World) -> None:
    (offer,) = (await world.api.get(f"/v2/products/{product('0b')}")).json()["offers"]
    assert (offer["qty"], offer["textQty"]) == (40, 40)
    assert (offer["availableQty"], offer["availableTextQty"]) == (2, 2)
    order_id = await world.bought("0b", 3)
    world.pass_time(11)
    assert await world.key_statuses(order_id) == ["DELIVERED", "DELIVERED", "PROCESSING"]
    world.pass_time(40)
    assert await world.status(order_id) == "completed"


async def test_k14_pictures_are_no_text(world: World) -> None:
    body = (await world.api.get(f"/v2/products/{product('06')}")).json()
    assert (body["qty"], body["textQty"]) == (50_000, 25_000)
    assert kind(await world.order("03", line={"keyType": "text"})) == (422, "ProductUnavailable")
    with_text = (await world.api.get("/v1/products", params={"withText": "yes"})).json()["results"]
    assert product("03") not in {entry["productId"] for entry in with_text}


async def test_k15_excluded_countries_and_activation_are_told(world: World) -> None:
    body = (await world.api.get(f"/v2/products/{product('0a')}")).json()
    assert "DE" in body["countryLimitation"]
    assert "Latin America" in body["activationDetails"]


async def test_k16_products_that_changed_can_be_asked_for(world: World) -> None:
    world.clock.now += 100
    await world.bought("02")
    since = (await world.api.get("/v1/products", params={"updatedSince": "2026-09-21T14:14:00Z"})).json()
    assert [entry["productId"] for entry in since["results"]] == [product("02")]


async def test_k17_regions_platforms_and_genres_are_open_lists(world: World) -> None:
    products = (await world.api.get("/v1/products", params={"limit": 100})).json()["results"]
    assert {"Steam", "GOG COM", "Rockstar Games Launcher"} <= {entry["platform"] for entry in products}
    assert {"REGION FREE", "LATAM", "ROW (Rest of World)"} <= {entry["regionalLimitations"] for entry in products}
    assert {"Adventure", "Strategy", "Turn-Based", "Prepaid"} <= {
        name for entry in products for name in entry["genres"]
    }


async def test_filters_work_together(world: World) -> None:
    ids = ",".join([product("01"), product("02"), product("03")])
    params = {"productId": ids, "kinguinId": "310002,310003", "withText": "yes", "name": "gardens"}
    (found,) = (await world.api.get("/v1/products", params=params)).json()["results"]
    assert found["productId"] == product("02")
    assert kind(await world.api.get("/v1/products", params={"withText": "no"})) == (400, "ConstraintViolation")
