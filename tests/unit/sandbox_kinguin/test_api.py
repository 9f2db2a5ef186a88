import base64
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.kinguin.rules import Line, PlaceOrder
from sandbox.kinguin.supplier import Settings, open_supplier

from tests.unit.sandbox_kinguin.simulated_supplier import SteppingClock, World, product


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["kind"]


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
    assert {page["item_count"] for page in pages} == {11}


async def test_k10_names_are_searched_from_three_characters_on(world: World) -> None:
    assert kind(await world.api.get("/v1/products", params={"name": "La"})) == (400, "ConstraintViolation")
    (found,) = (await world.api.get("/v1/products", params={"name": "lantern"})).json()["results"]
    assert found["productId"] == product("01")


async def test_k11_sorting_knows_two_fields(world: World) -> None:
    down = (await world.api.get("/v1/products", params={"sortBy": "kinguinId", "sortType": "desc"})).json()["results"]
    ids = [entry["kinguinId"] for entry in down]
    assert ids == sorted(ids, reverse=True)
    assert kind(await world.api.get("/v1/products", params={"sortBy": "price"})) == (400, "ConstraintViolation")


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-21",
        "2026-09-21 13:46:39",
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


async def test_k62_k63_every_failure_has_a_kind_and_a_trace(world: World) -> None:
    problem = (await world.api.get("/v1/order/none")).json()
    assert (problem["kind"], problem["status"], problem["method"]) == ("OrderNotFound", 404, "GET")
    assert len(problem["trace"]) == 10
    assert problem["path"] == "/esa/api/v1/order/none"


async def test_bodies_are_bounded_and_json(world: World) -> None:
    async def send(content: bytes, content_type: str = "application/json") -> tuple[int, str]:
        return kind(await world.api.post("/v2/order", content=content, headers={"Content-Type": content_type}))

    assert await send(b" " * 300_000) == (413, "Http")
    assert await send(b"{}", "text/plain") == (415, "Http")
    for broken in (b"", b"{", b"[" * 100_000, b'{"products": NaN}', b"9" * 5000, b"\xff"):
        assert await send(broken) == (400, "ConstraintViolation")


async def test_the_same_seed_and_orders_give_the_same_keys(tmp_path: Path) -> None:
    def serials(folder: str, seed: int) -> list[object]:
        settings = Settings(tmp_path / folder, api_key="", webhook_secret="", seed=seed, fulfil_seconds=0)
        supplier = open_supplier(settings, post=None, clock=SteppingClock())
        change = supplier.desk.place(PlaceOrder((Line(product("06"), 9, Decimal(10)),)))
        supplier.deliveries.run_due()
        keys = supplier.desk.keys(change.order_id, page=1, limit=100)
        supplier.store.close()
        return [change.order_id, *[key["serial"] for key in keys]]

    assert serials("one", 1) == serials("two", 1)
    assert not set(serials("three", 1)) & set(serials("four", 2))
