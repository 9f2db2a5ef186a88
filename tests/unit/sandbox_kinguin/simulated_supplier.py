from dataclasses import dataclass, field
from typing import Any

import httpx
from sandbox.kinguin.orders import Change
from sandbox.kinguin.supplier import Supplier

START = 1_790_000_000.0


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


def product(nn: str) -> str:
    return f"65a0c1d2e3f40516273800{nn}"
