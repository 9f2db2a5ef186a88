"""The simulator as a process: real sockets, kill -9, webhooks, cut connections."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sandbox.kinguin.app import CONTRACT

API_KEY = "key-of-the-tests"
SECRET = "secret-of-the-tests"
START_SECONDS = 20.0
LANTERN, ARMADA, HEXWRIGHT = (f"65a0c1d2e3f40516273800{nn}" for nn in ("01", "03", "08"))
BULK = "65b0c1d2e3f4051627380008"


class Simulator:
    """One simulator process; `start` again after `kill` finds the same data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.base = self.control = ""

    def start(self) -> None:
        log = self._folder / f"log-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "sandbox.kinguin", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]
        command += ["--data", str(self._folder / "data"), "--fulfil-seconds", "0.1", *self._options]
        environment = {**os.environ, "KINGUIN_API_KEY": API_KEY, "KINGUIN_WEBHOOK_SECRET": SECRET}
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + START_SECONDS
        while not (line := next((line for line in log.read_text().splitlines() if '"listening"' in line), None)):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        addresses = json.loads(line)
        self.base, self.control = addresses["public"] + "/esa/api", addresses["control"]

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(15)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGTERM)


class Shop:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.secrets: list[str | None] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.secrets.append(self.headers["X-Event-Secret"])
                shop.bodies.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhooks/kinguin"

    def told_about(self, order_id: str) -> list[dict[str, Any]]:
        return [body for body in self.bodies if body.get("orderId") == order_id]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Buyer:
    """Speaks to a simulator as its customer and as its puppeteer."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._client = httpx.AsyncClient(headers={"X-Api-Key": API_KEY}, timeout=10)

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, **params: Any) -> Any:
        response = await self._client.get(self._simulator.base + path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: object = None) -> httpx.Response:
        return await self._client.post(self._simulator.base + path, json=body)

    async def order(self, external_id: str, *lines: dict[str, object]) -> httpx.Response:
        products = lines or ({"productId": LANTERN, "qty": 1, "price": 8},)
        return await self.post("/v2/order", {"orderExternalId": external_id, "products": products})

    async def count(self, external_id: str) -> int:
        return int((await self.get("/v1/order", orderExternalId=external_id))["item_count"])

    async def control(self, method: str, path: str, body: object = None) -> Any:
        response = await self._client.request(method, self._simulator.control + path, json=body)
        assert response.is_success, response.text
        return response.json()

    async def until(self, order_id: str, status: str) -> None:
        async with asyncio.timeout(10):
            while (await self.get(f"/v1/order/{order_id}"))["status"] != status:  # noqa: ASYNC110 # asking is the only way
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Iterator[Simulator]:
    simulator = Simulator(tmp_path_factory.mktemp("kinguin"), "--webhook-url", shop.url)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture
async def buyer(simulator: Simulator) -> AsyncIterator[Buyer]:
    buyer = Buyer(simulator)
    await buyer.control("POST", "/reset")
    yield buyer
    await buyer.close()


async def test_an_order_is_bought_delivered_told_and_returned(buyer: Buyer, shop: Shop) -> None:
    lines = [{"productId": LANTERN, "qty": 2, "price": 8}, {"productId": ARMADA, "qty": 1, "price": 12}]
    order = (await buyer.order("story-1", *lines)).json()
    assert (order["status"], order["totalQty"]) == ("processing", 3)
    await buyer.until(order["orderId"], "completed")
    keys = await buyer.get(f"/v2/order/{order['orderId']}/keys")
    assert sorted(key["type"] for key in keys) == ["image/png", "text/plain", "text/plain"]
    (sold,) = (await buyer.control("GET", "/ledger?external_id=story-1"))["orders"]
    assert {key["serial"] for key in sold["keys"]} == {key["serial"] for key in keys}
    assert (await buyer.post(f"/v2/order/{order['orderId']}/keys/return")).status_code == 200
    await buyer.until(order["orderId"], "refunded")
    async with asyncio.timeout(5):
        while len(told := shop.told_about(order["orderId"])) < 3:  # noqa: ASYNC110 # it takes them in a thread
            await asyncio.sleep(0.02)
    assert {body["status"] for body in told} == {"processing", "completed", "refunded"}
    assert len({body["updatedAt"] for body in told}) == 3
    assert set(shop.secrets) == {SECRET}


async def test_a_thousand_keys_come_in_pages(buyer: Buyer) -> None:
    line = {"productId": HEXWRIGHT, "offerId": BULK, "qty": 1000, "price": 3.2}
    order_id = (await buyer.order("bulk", line)).json()["orderId"]
    await buyer.until(order_id, "completed")
    pages = [await buyer.get(f"/v2/order/{order_id}/keys", limit=100, page=page) for page in range(1, 12)]
    assert [len(page) for page in pages] == [100] * 10 + [0]
    assert len({key["id"] for page in pages for key in page}) == 1000


async def test_a_dropped_answer_was_an_order(buyer: Buyer) -> None:
    await buyer.control("POST", "/faults", {"action": "drop_answer", "operation": "placeOrder", "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await buyer.order("dropped")
    assert await buyer.count("dropped") == 1
    assert (await buyer.order("dropped")).status_code == 422
    assert (await buyer.control("GET", "/requests"))["answers"]["placeOrder"] == {"cut": 1, "422": 1}


async def test_a_reset_before_was_none(buyer: Buyer) -> None:
    await buyer.control("POST", "/faults", {"action": "reset_before", "operation": "placeOrder", "count": 1})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await buyer.order("reset")
    assert await buyer.count("reset") == 0


async def test_whoever_hangs_up_during_a_delay_has_still_ordered(buyer: Buyer, simulator: Simulator) -> None:
    await buyer.control("POST", "/faults", {"action": "delay", "operation": "placeOrder", "seconds": 0.5, "count": 1})
    body = {"orderExternalId": "slow", "products": [{"productId": LANTERN, "qty": 1, "price": 8}]}
    async with httpx.AsyncClient(headers={"X-Api-Key": API_KEY}, timeout=0.1) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            await impatient.post(f"{simulator.base}/v2/order", json=body)
    assert await buyer.count("slow") == 0
    async with asyncio.timeout(5):
        while not await buyer.count("slow"):  # noqa: ASYNC110 # asking is the only way
            await asyncio.sleep(0.05)


async def test_what_was_answered_survives_a_kill_and_goes_on_after_it(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path, "--balance", "100.00")
    simulator.start()
    buyer = Buyer(simulator)
    try:
        body = {"product_id": LANTERN, "type": "text/plain", "serial": "PLANTED-BEFORE"}
        await buyer.control("POST", "/plant", body)
        orders = [(await buyer.order(f"survivor-{number}")).json() for number in range(5)]
        assert simulator.end(signal.SIGKILL) == -signal.SIGKILL
        simulator.start()
        for order in orders:
            await buyer.until(order["orderId"], "completed")
        serials = [(await buyer.get(f"/v2/order/{order['orderId']}/keys"))[0]["serial"] for order in orders]
        assert serials[0] == "PLANTED-BEFORE"
        assert len(set(serials)) == 5
        assert await buyer.get("/v1/balance") == {"balance": 62.55}
        assert (await buyer.order("survivor-0")).status_code == 422
        assert simulator.end(signal.SIGTERM) == 0
    finally:
        await buyer.close()
        simulator.stop()


async def test_an_interrupt_is_a_clean_end_too(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    simulator.start()
    assert simulator.end(signal.SIGINT) == 0


async def test_the_contract_is_served(simulator: Simulator) -> None:
    async with httpx.AsyncClient() as client:
        for base in (simulator.base, simulator.base.removesuffix("/esa/api")):
            assert (await client.get(f"{base}/openapi.yaml")).content == CONTRACT.read_bytes()


async def test_an_order_is_taken_after_its_connection_was_cut(buyer: Buyer, shop: Shop) -> None:
    await buyer.control("POST", "/faults", {"action": "commit_late", "seconds": 0.5, "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await buyer.order("late")
    assert await buyer.count("late") == 0
    async with asyncio.timeout(5):
        while not await buyer.count("late"):  # noqa: ASYNC110 # asking is the only way
            await asyncio.sleep(0.05)
    (sold,) = (await buyer.control("GET", "/ledger?prefix=late"))["orders"]
    await buyer.until(sold["order_id"], "completed")
    assert {body["status"] for body in shop.told_about(sold["order_id"])} >= {"processing"}


async def test_an_answer_that_drips_is_whole_but_late(buyer: Buyer) -> None:
    rule = {"action": "drip", "operation": "searchProducts", "seconds": 0.4, "count": 1}
    await buyer.control("POST", "/faults", rule)
    begin = time.monotonic()
    assert (await buyer.get("/v1/products"))["item_count"] == 12
    assert time.monotonic() - begin > 0.3


async def test_a_huge_body_comes_whole(buyer: Buyer) -> None:
    rule = {"action": "status", "operation": "getBalance", "status": 502, "body": "huge", "count": 1}
    await buyer.control("POST", "/faults", rule)
    with pytest.raises(AssertionError):
        await buyer.get("/v1/balance")
    assert (await buyer.control("GET", "/requests"))["answers"]["getBalance"] == {"502": 1}


async def test_a_flood_of_product_updates_reaches_the_shop(buyer: Buyer, shop: Shop) -> None:
    before = len(shop.bodies)
    await buyer.control("POST", "/webhooks/flood", {"count": 50, "per_second": 500})
    async with asyncio.timeout(10):
        while (await buyer.control("GET", "/webhooks"))["delivered"] < 50:  # noqa: ASYNC110 # asking is the only way
            await asyncio.sleep(0.05)
    flood = [body for body in shop.bodies[before:] if "kinguinId" in body]
    assert len({body["productId"] for body in flood}) == 50
