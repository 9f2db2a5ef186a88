"""Alice pays, watches her order, and opens her keys. Bob gets nothing."""

import asyncio
import base64
import os
import uuid
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, Page, expect
from sandbox.customer import Refused
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.shop import Purchase, new_order_id, paid_order

from docs.examples.submit_order import OrderRefused, open_channel, submit_order
from tests.e2e.system import System, keys_of

TEXT_PRODUCT = PRODUCTS[0].product_id
PICTURE_PRODUCT = next(product.product_id for product in PRODUCTS if not any(offer.text for offer in product.offers))
LARGE_PICTURE_BYTES = 300_000
LOGIN_MILLISECONDS = 10_000
READY_MILLISECONDS = 40_000


async def logged_in(page: Page, address: str, name: str) -> None:
    await page.goto(address)
    await page.get_by_role("button", name=name).click()
    await page.wait_for_url(address, timeout=LOGIN_MILLISECONDS)


async def test_a_paid_order_becomes_a_key_on_its_owners_screen(
    system: System, browser: Browser, http: httpx.AsyncClient, artifacts: Path
) -> None:
    order_id = await system.pay("alice", Purchase(TEXT_PRODUCT, quantity=2))
    context = await browser.new_context()
    page = await context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    await logged_in(page, f"{system.endpoints['edge']}/orders/{order_id}", "alice")

    await expect(page.locator("[data-key-id]")).to_have_count(2, timeout=READY_MILLISECONDS)
    shown = set()
    for number in range(2):
        key = page.locator("[data-key-id]").nth(number)
        await key.get_by_role("button", name="Show key").click()
        await expect(key.locator(".secret")).to_be_visible(timeout=LOGIN_MILLISECONDS)
        shown.add(await key.locator(".secret").inner_text())
    await page.screenshot(path=artifacts / "order-opened.png", full_page=True)

    assert shown == set(await system.serials(http, order_id))
    delivered = await system.until(http, "alice", order_id, "DELIVERED")
    assert all(key["open_time"] for line in delivered["lines"] for key in line["keys"])
    assert not failures
    await context.close()


async def test_a_picture_key_is_shown_as_a_picture(
    system: System, browser: Browser, http: httpx.AsyncClient, artifacts: Path
) -> None:
    order_id = await system.pay("alice", Purchase(PICTURE_PRODUCT))
    await system.until(http, "alice", order_id, "READY")
    context = await browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = await context.new_page()
    await logged_in(page, f"{system.endpoints['edge']}/orders/{order_id}", "alice")
    await page.get_by_role("button", name="Show key").click()
    picture = page.locator("img.picture")
    await expect(picture).to_be_visible(timeout=LOGIN_MILLISECONDS)
    assert await picture.evaluate("image => image.naturalWidth") > 1
    await page.screenshot(path=artifacts / "order-picture-phone-dark.png", full_page=True)
    await context.close()


async def test_a_large_picture_opens_in_the_page_in_the_edge_and_in_a_program(
    system: System, browser: Browser, http: httpx.AsyncClient
) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + os.urandom(LARGE_PICTURE_BYTES)
    plant = {"product_id": PICTURE_PRODUCT, "serial": base64.b64encode(picture).decode(), "type": "image/png"}
    planted = await http.post(f"{system.endpoints['kinguin_control']}/plant", json=plant)
    assert planted.is_success, planted.text
    order_id = await system.pay("alice", Purchase(PICTURE_PRODUCT))
    order = await system.until(http, "alice", order_id, "READY")
    opened = await system.customer(http, "alice").open_key(order_id, keys_of(order)[0])
    assert opened.plaintext == picture
    for with_script in (True, False):
        context = await browser.new_context(java_script_enabled=with_script, accept_downloads=True)
        page = await context.new_page()
        await logged_in(page, f"{system.endpoints['edge']}/orders/{order_id}", "alice")
        await page.get_by_role("button", name="Show key").click()
        async with page.expect_download() as downloading:
            await page.get_by_text("Download picture").click()
        downloaded = await (await downloading.value).path()
        assert downloaded.read_bytes() == picture
        await context.close()


async def test_without_a_script_the_edge_opens_the_key(
    system: System, browser: Browser, http: httpx.AsyncClient, artifacts: Path
) -> None:
    order_id = await system.pay("alice", Purchase(TEXT_PRODUCT))
    await system.until(http, "alice", order_id, "READY")
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await logged_in(page, f"{system.endpoints['edge']}/orders/{order_id}", "alice")
    await page.get_by_role("button", name="Show key").click()
    text = await page.locator(".secret").inner_text()
    await page.screenshot(path=artifacts / "order-no-script.png", full_page=True)
    assert [text] == await system.serials(http, order_id)
    await context.close()


async def test_the_mail_holds_one_link_and_no_key(system: System, http: httpx.AsyncClient) -> None:
    order_id = await system.pay("alice", Purchase(TEXT_PRODUCT))
    order = await system.until(http, "alice", order_id, "READY")
    await system.until_true(lambda: system.mails(http, order_id))
    (mail,) = await system.mails(http, order_id)
    assert order_id in mail["text"]
    assert mail["text"].count("http") == 1
    assert f"{system.endpoints['edge']}/orders/{order_id}" in mail["text"]
    for serial in await system.serials(http, order_id):
        assert serial not in mail["text"] + mail["html"] + str(mail)
    assert all(key_id not in str(mail) for key_id in keys_of(order))


async def test_somebody_else_gets_the_answer_for_no_order_at_all(system: System, http: httpx.AsyncClient) -> None:
    order_id = await system.pay("alice", Purchase(TEXT_PRODUCT))
    order = await system.until(http, "alice", order_id, "READY")
    bob = system.customer(http, "bob")
    with pytest.raises(Refused, match="404 ORDER_NOT_FOUND"):
        await bob.read_order(order_id)
    with pytest.raises(Refused, match="404 ORDER_NOT_FOUND"):
        await bob.open_key(order_id, keys_of(order)[0])
    with pytest.raises(Refused, match="404 ORDER_NOT_FOUND"):
        await bob.read_order("there-is-no-such-order")
    await system.until_true(lambda: system.actions(order_id, "order.access_denied"))


async def test_each_opening_is_in_the_log_before_the_key_is_out(system: System, http: httpx.AsyncClient) -> None:
    order_id = await system.pay("alice", Purchase(TEXT_PRODUCT))
    order = await system.until(http, "alice", order_id, "READY")
    await system.customer(http, "alice").open_key(order_id, keys_of(order)[0])
    await system.until_true(lambda: system.actions(order_id, "key.link_released"))
    entries = await system.audit_entries(order_id)
    actions = [entry.action for entry in entries]
    assert actions.index("key.link_authorized") < actions.index("key.link_released")
    authorized = entries[actions.index("key.link_authorized")]
    assert authorized.actor.id == "alice"
    assert b"alice" not in authorized.canonical_entry


async def test_a_synchronous_program_of_the_shop_submits_a_paid_order(system: System, http: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    message = paid_order("alice", Purchase(TEXT_PRODUCT), order_id=new_order_id(now), now=now)
    certificates = Path(system.endpoints["identities"]["shop"]["cert"]).parent
    with open_channel(system.endpoints["grpc"]["fulfillment"], certificates) as channel:
        submit = partial(submit_order, channel, message.order, message.payment, request_id=str(uuid.uuid4()))
        first, again = await asyncio.to_thread(submit), await asyncio.to_thread(submit)
        message.order.items[0].quantity = 0
        spoiled = partial(submit_order, channel, message.order, message.payment, request_id=str(uuid.uuid4()))
        with pytest.raises(OrderRefused) as refused:
            await asyncio.to_thread(spoiled)
    assert first.order_id == again.order_id == message.order.order_id
    assert refused.value.reason == "INVALID_REQUEST"
    assert "order.items[0].quantity" in refused.value.fields
    await system.until(http, "alice", first.order_id, "READY")
