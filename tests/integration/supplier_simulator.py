"""The supplier's simulator as a process, with its control port at hand."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from sandbox.child import Child

API_KEY = "supplier-key-of-the-tests"
START_SECONDS = 20.0
LANTERN, ARMADA, CINDER, CARTOGRAPHER, REACTOR = (
    f"65a0c1d2e3f40516273800{number}" for number in ("01", "03", "05", "09", "0b")
)


class SupplierSimulator:
    """One simulator. Everything that it sold is in `ledger`."""

    def __init__(
        self, folder: Path, *, fulfil_seconds: float = 0.05, webhook_url: str | None = None, webhook_secret: str = ""
    ) -> None:
        self._log = folder / "supplier.log"
        command = [sys.executable, "-m", "sandbox.kinguin", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]
        command += ["--data", str(folder / "supplier"), "--fulfil-seconds", str(fulfil_seconds)]
        environment = {"KINGUIN_API_KEY": API_KEY}
        if webhook_url is not None:
            command += ["--webhook-url", webhook_url]
            environment["KINGUIN_WEBHOOK_SECRET"] = webhook_secret
        self._child = Child("kinguin", command, environment=environment, log=self._log)
        self.base = self._control = ""

    def start(self) -> None:
        self._child.start()
        deadline = time.monotonic() + START_SECONDS
        while not (line := next((line for line in self._lines() if '"listening"' in line), "")):
            self._child.check_running()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)
        addresses = json.loads(line)
        self.base, self._control = addresses["public"] + "/esa/api", addresses["control"]

    def stop(self) -> None:
        self._child.stop()

    def misbehave(self, action: str, **fields: object) -> None:
        self._post("/faults", {"action": action, **fields})

    def behave(self) -> None:
        httpx.delete(self._control + "/faults").raise_for_status()

    def reset(self) -> None:
        self._post("/reset", {})

    def plant(self, product_id: str, serial: str, content_type: str = "text/plain") -> None:
        self._post("/plant", {"product_id": product_id, "serial": serial, "type": content_type})

    def release(self) -> None:
        self._post("/release", {})

    def set_balance(self, balance: str) -> None:
        self._post("/balance", {"balance": balance})

    def set_price(self, offer_id: str, price: str) -> None:
        self._post("/stock", {"offer_id": offer_id, "price": price})

    def asked(self, operation: str) -> int:
        """Return how often an operation was asked."""
        return int(httpx.get(self._control + "/requests").json()["operations"][operation])

    def buy(self, external_id: str, product_id: str, quantity: int, price: str) -> None:
        """Buy as somebody does who uses our account outside of all guards."""
        line = {"productId": product_id, "qty": quantity, "price": float(price)}
        body = {"orderExternalId": external_id, "products": [line]}
        httpx.post(self.base + "/v2/order", json=body, headers={"X-Api-Key": API_KEY}).raise_for_status()

    def sold(self, external_id: str = "") -> list[dict[str, Any]]:
        """Return the orders with their keys, in plain."""
        query = {"external_id": external_id} if external_id else None
        orders: list[dict[str, Any]] = httpx.get(self._control + "/ledger", params=query).json()["orders"]
        return orders

    def sold_by_product(self, prefix: str = "") -> dict[str, int]:
        """Return how many keys of each product were sold in orders whose external id begins so."""
        answer = httpx.get(self._control + "/ledger", params={"prefix": prefix} if prefix else None)
        return {product_id: counts["sold"] for product_id, counts in answer.json()["products"].items()}

    def requests(self) -> dict[str, Any]:
        """Return how often each operation was asked, with what answers, and how often too often."""
        counts: dict[str, Any] = httpx.get(self._control + "/requests").json()
        return counts

    def control(self, path: str, **body: object) -> dict[str, Any]:
        """Do any other call of the control port, such as `/release-date`, `/refund` or `/webhooks/flood`."""
        answer = httpx.post(self._control + path, json=body)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said

    def _post(self, path: str, body: object) -> None:
        httpx.post(self._control + path, json=body).raise_for_status()

    def _lines(self) -> list[str]:
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
