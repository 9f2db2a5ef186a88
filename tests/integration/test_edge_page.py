"""The order page in a real browser, on the edge with fakes below its ports."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from gateway.auth.session import COOKIE
from gateway.domain.order import Key, Order, State
from gateway.server import HttpServer
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from sandbox.ports import free_port

from tests.unit.gateway.edge_fakes import FakeClock, World, an_order, down

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
KEY = '[data-key-id="key-order-1-1"]'


class RealClock(FakeClock):
    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Site:
    """A served world, and what the object store was asked for."""

    world: World
    fetched: list[str]

    async def put(self, order: Order) -> None:
        self.world.fulfillments.put("alice", order)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    installed = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=installed, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
def objects() -> Iterator[tuple[ThreadingHTTPServer, World, list[str]]]:
    world = World(clock=RealClock())
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            body = world.fulfillments.objects.get(self.path.partition("?")[0].rpartition("/")[2], b"")
            self.send_response(200 if body else 404)
            self.send_header("access-control-allow-origin", world.origin)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # the signature of http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, world, fetched
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def site(objects: tuple[ThreadingHTTPServer, World, list[str]]) -> AsyncIterator[Site]:
    store, world, fetched = objects
    port = free_port()
    world.origin = f"http://localhost:{port}"
    world.object_origin = world.fulfillments.object_origin = f"http://localhost:{store.server_port}"
    world.fulfillments.put("alice", an_order())
    server = HttpServer(
        world.app(), listen=f"127.0.0.1:{port}", streams=world.streams, trusted_proxies=(), drain_seconds=1
    )
    await server.start()
    yield Site(world, fetched)
    await server.drain(5)


async def visitor(site: Site, browser: Browser, **options: object) -> BrowserContext:
    context = await browser.new_context(**options)  # type: ignore[arg-type] # each test names the options it needs
    context.set_default_timeout(15_000)
    value = site.world.session()[1]["cookie"].partition("=")[2]
    cookie = {"name": COOKIE, "value": value, "domain": "localhost", "path": "/", "secure": True, "httpOnly": True}
    await context.add_cookies([cookie])  # type: ignore[list-item] # a typed dictionary, spelled as a plain one
    return context


async def open_order(site: Site, context: BrowserContext) -> tuple[Page, list[str]]:
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    await page.goto(f"{site.world.origin}/orders/order-1")
    return page, faults


async def test_a_key_is_opened_in_the_page_copied_and_hidden(site: Site, browser: Browser) -> None:
    context = await visitor(site, browser, permissions=["clipboard-read", "clipboard-write"])
    page, faults = await open_order(site, context)
    assert site.fetched == []
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_have_text("AAAA-BBBB-CCCC")
    await expect(page.locator(f"{KEY} [role=timer]")).to_contain_text("14:")
    await page.click(f"{KEY} .copy")
    await expect(page.locator(f"{KEY} .key-status")).to_have_text("Copied.")
    assert await page.evaluate("navigator.clipboard.readText()") == "AAAA-BBBB-CCCC"
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .key-body")).to_be_hidden()
    assert "AAAA-BBBB" not in await page.content()
    assert site.fetched == ["/keys/key-order-1-1?X-Amz-Signature=1"]
    assert faults == []
    await context.close()


async def test_a_picture_is_shown_and_can_be_downloaded(site: Site, browser: Browser) -> None:
    site.world.fulfillments.plaintexts["key-order-1-1"] = ("image/png", PNG)
    context = await visitor(site, browser)
    page, faults = await open_order(site, context)
    await page.click(f"{KEY} .show")
    await expect(page.locator(".picture")).to_have_js_property("naturalWidth", 1)
    async with page.expect_download() as downloading:
        await page.click(f"{KEY} .download")
    download = await downloading.value
    assert download.suggested_filename == "game-key-key-order-1-1.png"
    assert (await download.path()).read_bytes() == PNG
    assert faults == []
    await context.close()


async def test_progress_is_live_and_new_keys_appear(site: Site, browser: Browser) -> None:
    await site.put(an_order(state=State.PURCHASING, keys=0, quantity=2))
    context = await visitor(site, browser)
    page, faults = await open_order(site, context)
    await expect(page.locator('.step[data-step="bought"]')).to_have_attribute("data-state", "current")
    await expect(page.locator(".pending")).to_have_text("2 keys being bought")
    await site.put(an_order(state=State.AWAITING_KEYS, keys=1, quantity=2))
    await expect(page.locator(".headline")).to_have_text("Bought, waiting for your keys")
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_have_text("AAAA-BBBB-CCCC")
    await site.put(an_order(state=State.READY, keys=2, quantity=2))
    await expect(page.locator('[data-key-id="key-order-1-2"] .show')).to_be_visible()
    await expect(page.locator(f"{KEY} .secret")).to_have_text("AAAA-BBBB-CCCC")
    await expect(page.locator(".pending")).to_be_hidden()
    await page.click('[data-key-id="key-order-1-2"] .show')
    await expect(page.locator('[data-key-id="key-order-1-2"] .secret')).to_be_visible()
    assert faults == []
    await context.close()


async def test_the_link_renews_itself(site: Site, browser: Browser) -> None:
    site.world.fulfillments.link_seconds = 18
    context = await visitor(site, browser)
    page, _ = await open_order(site, context)
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_be_visible()
    site.world.fulfillments.link_seconds = 900
    await expect(page.locator(f"{KEY} [role=timer]")).to_contain_text("14:", timeout=20_000)
    requests = site.world.fulfillments.requests
    assert len(requests) == 2
    assert requests[0].request_id != requests[1].request_id
    assert requests[0].recipient_jwk != requests[1].recipient_jwk
    await context.close()


async def test_a_renewal_leaves_the_readers_focus_where_it_is(site: Site, browser: Browser) -> None:
    site.world.fulfillments.link_seconds = 19
    context = await visitor(site, browser)
    page, _ = await open_order(site, context)
    await page.click(f"{KEY} .show")
    await page.locator(f"{KEY} .copy").focus()
    site.world.fulfillments.link_seconds = 900
    await expect(page.locator(f"{KEY} [role=timer]")).to_contain_text("14:", timeout=15_000)
    assert await page.evaluate("document.activeElement.classList.contains('copy')")
    await expect(page.locator(f"{KEY} .secret")).to_have_text("AAAA-BBBB-CCCC")
    await context.close()


async def look_away(page: Page, *, hidden: bool) -> None:
    """Do to the page what the browser does when its tab goes to the background: a headless one keeps all in front."""
    await page.evaluate(
        """hidden => {
            const state = hidden ? "hidden" : "visible";
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def streams_open(site: Site, number: int) -> None:
    """Return once the edge holds so many event streams of alice's."""
    async with asyncio.timeout(20):
        while site.world.streams._open["alice"] != number:  # noqa: ASYNC110 # the edge counts and tells nobody
            await asyncio.sleep(0.05)


async def test_a_key_in_the_background_is_hidden_when_its_link_ends(site: Site, browser: Browser) -> None:
    site.world.fulfillments.link_seconds = 19
    context = await visitor(site, browser)
    page, _ = await open_order(site, context)
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_be_visible()
    await look_away(page, hidden=True)
    await expect(page.locator(f"{KEY} .key-status")).to_contain_text("Hidden while you were away", timeout=25_000)
    assert "AAAA-BBBB" not in await page.content()
    assert len(site.world.fulfillments.requests) == 1
    await context.close()


async def test_a_tab_in_the_background_holds_no_connection(site: Site, browser: Browser) -> None:
    await site.put(an_order(state=State.PURCHASING, keys=0))
    context = await visitor(site, browser)
    page, faults = await open_order(site, context)
    await streams_open(site, 1)
    await look_away(page, hidden=True)
    await streams_open(site, 0)
    await site.put(an_order())
    await look_away(page, hidden=False)
    await expect(page.locator(".headline")).to_have_text("Ready for you")
    assert faults == []
    await context.close()


@pytest.mark.parametrize("fault", ["changed", "another key", "gone"])
async def test_what_is_not_the_stored_key_is_never_shown(site: Site, browser: Browser, fault: str) -> None:
    context = await visitor(site, browser)
    page, _ = await open_order(site, context)
    fake = site.world.fulfillments
    create = fake.create_download_link

    async def tampered(request):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 # a stand-in for one method
        if fault == "another key":
            fake.put("alice", an_order(keys=2, quantity=2))
            link = await create(replace(request, key_id="key-order-1-2"))
            fake.objects["key-order-1-1"] = fake.objects["key-order-1-2"]
            return replace(link, url=link.url.replace("key-order-1-2", "key-order-1-1"))
        link = await create(request)
        fake.objects[request.key_id] = b"" if fault == "gone" else fake.objects[request.key_id][:-2] + b"AA"
        return link

    fake.create_download_link = tampered  # type: ignore[method-assign] # same
    await page.click(f"{KEY} .show")
    said = "does not answer" if fault == "gone" else "we did not open it"
    await expect(page.locator(f"{KEY} .key-status")).to_contain_text(said)
    assert await page.locator(".secret").count() == 0
    await context.close()


async def test_an_outage_is_told_and_trying_again_works(site: Site, browser: Browser) -> None:
    context = await visitor(site, browser)
    page, _ = await open_order(site, context)
    site.world.fulfillments.open_failure = down()
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .key-status")).to_contain_text("Your key is safe", timeout=20_000)
    site.world.fulfillments.open_failure = None
    await expect(page.locator(f"{KEY} .show .label")).to_have_text("Try again")
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_be_visible()
    await context.close()


async def test_it_works_by_keyboard_at_phone_width(site: Site, browser: Browser) -> None:
    context = await visitor(site, browser, viewport={"width": 360, "height": 740})
    page, _ = await open_order(site, context)
    await page.locator(f"{KEY} .show").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(f"{KEY} .secret")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.locator(f"{KEY} .key-body")).to_be_hidden()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await context.close()


async def test_without_scripts_the_form_opens_the_key(site: Site, browser: Browser) -> None:
    context = await visitor(site, browser, java_script_enabled=False)
    page, _ = await open_order(site, context)
    await page.click(f"{KEY} .show")
    await expect(page.locator(f"{KEY} .secret")).to_have_text("AAAA-BBBB-CCCC")
    await page.click("text=Hide key")
    await expect(page.locator(f"{KEY} .show")).to_be_visible()
    assert "AAAA-BBBB" not in await page.content()
    assert site.fetched == []
    await context.close()


async def test_polling_takes_over_while_streams_fail(site: Site, browser: Browser) -> None:
    await site.put(an_order(state=State.PENDING, keys=0))
    context = await visitor(site, browser)
    await context.route("**/events", lambda route: route.fulfill(status=503))
    page, _ = await open_order(site, context)
    await expect(page.locator(".live")).to_contain_text("Live updates are not available")
    opened = replace(an_order(), state=State.DELIVERED, update_time=datetime.now(UTC) + timedelta(seconds=1))
    key = Key("key-order-1-1", "text/plain", None, datetime.now(UTC))
    await site.put(replace(opened, lines=(replace(opened.lines[0], keys=(key,)),)))
    await expect(page.locator(".headline")).to_have_text("All done")
    await expect(page.locator(f"{KEY} .key-note")).to_contain_text("Opened")
    await expect(page.locator(".live")).to_have_text("")
    await context.close()


async def test_streams_are_taken_up_again_soon_after_an_outage(site: Site, browser: Browser) -> None:
    await site.put(an_order(state=State.PENDING, keys=0))
    context = await visitor(site, browser)
    await context.route("**/events", lambda route: route.fulfill(status=503))
    page, _ = await open_order(site, context)
    await expect(page.locator(".live")).to_contain_text("Live updates are not available")
    await context.unroute("**/events")
    await streams_open(site, 1)
    await expect(page.locator(".live")).to_have_text("")
    await context.close()
