import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from sandbox.kinguin.orders import Change
from sandbox.kinguin.supplier import Supplier

START = 1_790_000_000.0
EVERY_CALL = [
    ("GET", "/v1/balance"),
    ("GET", "/v2/products/65a0c1d2e3f4051627380001"),
    ("GET", "/v1/products"),
    ("POST", "/v2/order"),
    ("GET", "/v1/order/none"),
    ("GET", "/v1/order"),
    ("GET", "/v2/order/none/keys"),
    ("POST", "/v2/order/none/keys/return"),
]


@dataclass
class SteppingClock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """The simulator in this process, on a clock that the test moves."""

    supplier: Supplier
    clock: SteppingClock
    api: httpx.AsyncClient
    control: httpx.AsyncClient
    changes: list[Change] = field(default_factory=list)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps, so that what follows from a step happens too."""
        for _ in range(10):
            self.clock.now += seconds / 10
            for _ in range(3):
                self.changes += self.supplier.deliveries.run_due()

    async def order(self, nn: str = "01", qty: int = 1, price: float = 50, **more: Any) -> httpx.Response:
        body = {"products": [{"productId": product(nn), "qty": qty, "price": price, **more.pop("line", {})}], **more}
        return await self.api.post("/v2/order", json=body)

    async def bought(self, nn: str = "01", qty: int = 1, **more: Any) -> str:
        response = await self.order(nn, qty, **more)
        assert response.status_code == 201, response.text
        return str(response.json()["orderId"])

    async def fault(self, action: str, **parameters: Any) -> None:
        response = await self.control.post("/faults", json={"action": action, **parameters})
        assert response.status_code == 200, response.text

    async def status(self, order_id: str) -> str:
        return str((await self.api.get(f"/v1/order/{order_id}")).json()["status"])

    async def key_statuses(self, order_id: str) -> list[str]:
        order = (await self.api.get(f"/v1/order/{order_id}")).json()
        return [key["status"] for line in order["products"] for key in line["keys"]]

    async def keys(self, order_id: str, **params: int) -> list[dict[str, Any]]:
        response = await self.api.get(f"/v2/order/{order_id}/keys", params=params)
        assert response.status_code == 200, response.text
        keys: list[dict[str, Any]] = response.json()
        return keys

    async def bulk(self, qty: int) -> str:
        """Buy wholesale, and wait for the keys."""
        order_id = await self.bought("08", qty, line={"offerId": offer("08")})
        self.pass_time(11)
        return order_id

    async def give_back(self, order_id: str) -> httpx.Response:
        return await self.api.post(f"/v2/order/{order_id}/keys/return")

    async def found(self, external_id: str) -> list[str]:
        answer = (await self.api.get("/v1/order", params={"orderExternalId": external_id})).json()
        return [order["orderId"] for order in answer["results"]]

    async def balance(self) -> Decimal:
        answer = (await self.api.get("/v1/balance")).text
        return Decimal(json.loads(answer, parse_float=Decimal)["balance"])

    async def sold(self, prefix: str = "") -> dict[str, int]:
        """Return how many keys of each product were sold in orders whose reference begins so."""
        params = {"prefix": prefix} if prefix else {}
        products = (await self.control.get("/ledger", params=params)).json()["products"]
        return {product_id: counts["sold"] for product_id, counts in products.items()}


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["kind"]


def offer(nn: str) -> str:
    return f"65b0c1d2e3f40516273800{nn}"


def product(nn: str) -> str:
    return f"65a0c1d2e3f40516273800{nn}"
