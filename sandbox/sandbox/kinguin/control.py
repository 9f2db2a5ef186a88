"""The control port: a test makes the supplier misbehave here, and reads what it really sold.

No part of Kinguin's API, and no authentication: it listens on an address of its own that only tests may reach. Bodies
and answers are JSON; a body that is wrong is 400 with `{"error": ...}`. README.md beside this file tells every field.

    GET  /healthz                      it is up
    GET  /ledger                       orders, their keys in plain, where the money went
    GET  /requests                     how often each operation was asked, with what answers
    GET  /catalogue                    every product, sold out or not
    GET, POST, DELETE /faults          rules: `{"action": "drop_answer", "operation": "placeOrder", "count": 1}`
    POST /plant                        a key to be sold next
    POST /balance, /stock              money and stock
    POST /release, /release-date       deliver now; release a pre-order at another time
    POST /claim, /cancel, /refund      mark keys as used; cancel an order; take keys back without being asked
    GET  /webhooks                     what became of them, and whether the endpoint is disabled
    POST /webhooks/probe, /flood       the test button; updates of products that were never sold
    POST /webhooks/disable, /enable    what the supplier does with an endpoint that fails too often
    POST /reset                        an empty book and a full stock
"""

import json
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.kinguin.app import answer
from sandbox.kinguin.catalogue import BY_ID, PRODUCTS
from sandbox.kinguin.control_bodies import (
    Balance,
    Cancel,
    Claim,
    Flood,
    Plant,
    Refund,
    Release,
    ReleaseDate,
    Stock,
    planted,
)
from sandbox.kinguin.ledger import Wanted, ledger_json
from sandbox.kinguin.mischief import Rule
from sandbox.kinguin.moments import exact_moment
from sandbox.kinguin.supplier import Supplier

_MOST_BODY_BYTES = 4 * 1024 * 1024
_RULES: TypeAdapter[list[Rule]] = TypeAdapter(list[Rule])


_B = TypeVar("_B", bound=BaseModel)


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise HTTPException(413, "the body is too large")
    return bytes(body)


async def _read_as(request: Request, shape: type[_B]) -> _B:
    return shape.model_validate_json(await _read(request) or b"{}")


class Control:
    """The calls of the control port."""

    def __init__(self, supplier: Supplier) -> None:
        self._supplier = supplier

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/healthz", self.health),
            Route("/ledger", self.ledger),
            Route("/requests", self.requests),
            Route("/catalogue", self.catalogue),
            Route("/faults", self.list_faults, methods=["GET"]),
            Route("/faults", self.add_faults, methods=["POST"]),
            Route("/faults", self.clear_faults, methods=["DELETE"]),
            Route("/plant", self.plant, methods=["POST"]),
            Route("/balance", self.set_balance, methods=["POST"]),
            Route("/stock", self.set_stock, methods=["POST"]),
            Route("/release", self.release, methods=["POST"]),
            Route("/release-date", self.set_release_date, methods=["POST"]),
            Route("/claim", self.claim, methods=["POST"]),
            Route("/cancel", self.cancel, methods=["POST"]),
            Route("/refund", self.refund, methods=["POST"]),
            Route("/webhooks", self.webhooks, methods=["GET"]),
            Route("/webhooks/probe", self.probe, methods=["POST"]),
            Route("/webhooks/flood", self.flood, methods=["POST"]),
            Route("/webhooks/enable", self.enable_webhooks, methods=["POST"]),
            Route("/webhooks/disable", self.disable_webhooks, methods=["POST"]),
            Route("/reset", self.reset, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Tell that the simulator is up."""
        return answer({"status": "ok"})

    async def ledger(self, request: Request) -> Response:
        """Tell what was sold; `?external_id=`, `?prefix=` or `?order_id=` for some of the orders."""
        query = request.query_params
        wanted = Wanted(query.get("external_id"), query.get("prefix"), query.get("order_id"))
        return answer(ledger_json(self._supplier.store, wanted))

    async def requests(self, _request: Request) -> Response:
        """Tell what was asked."""
        return answer({**self._supplier.traffic.as_json(), **self._supplier.patience.as_json()})

    async def catalogue(self, _request: Request) -> Response:
        """Tell what is in the catalogue, sold out or not."""
        products = [self._supplier.product_json(product) for product in self._supplier.store.products()]
        return answer({"products": products})

    async def list_faults(self, _request: Request) -> Response:
        """Tell which rules there are and how often each has applied."""
        return answer({"rules": self._supplier.faults.as_json()})

    async def add_faults(self, request: Request) -> Response:
        """Add rules: one object, or a list."""
        given = json.loads(await _read(request))
        self._supplier.faults.add(_RULES.validate_python(given if isinstance(given, list) else [given]))
        return await self.list_faults(request)

    async def clear_faults(self, request: Request) -> Response:
        """Delete every rule, or those of `?action=`; what they did to orders stays."""
        action = request.query_params.get("action")
        if action is None:
            self._supplier.faults.clear()
        else:
            self._supplier.faults.delete(action)
        return await self.list_faults(request)

    async def plant(self, request: Request) -> Response:
        """Put a key at the head of a product's stock; keys planted earlier are sold first."""
        body = await _read_as(request, Plant)
        if body.product_id not in BY_ID:
            raise ValueError("unknown product_id")
        serial, shown = planted(body)
        with self._supplier.store.transaction() as connection:
            connection.execute(
                "INSERT INTO planted (product_id, type, serial, shown) VALUES (?, ?, ?, ?)",
                (body.product_id, body.type, serial, shown),
            )
        return answer({"product_id": body.product_id, "type": body.type, "serial": serial, "shown": shown}, 201)

    async def set_balance(self, request: Request) -> Response:
        """Set or move the account's balance."""
        body = await _read_as(request, Balance)
        store = self._supplier.store
        if (body.balance is None) == (body.add is None):
            raise ValueError("give either balance or add")
        with store.transaction():
            amount = body.add if body.add is not None else (body.balance or Decimal(0)) - store.balance
            store.move_balance(amount, now=self._supplier.clock(), reason="control")
        return answer({"balance": str(store.balance)})

    async def set_stock(self, request: Request) -> Response:
        """Change an offer's price or stock."""
        body = await _read_as(request, Stock)
        store = self._supplier.store
        for product in PRODUCTS:
            for stock in store.stock_of(product):
                if stock.offer.offer_id == body.offer_id:
                    changes = body.model_dump(exclude_none=True, exclude={"offer_id"})
                    with store.transaction():
                        store.set_stock(replace(stock, **changes), now=self._supplier.clock())
                    self._supplier.announce_stock()
                    return answer({"offer_id": body.offer_id, **changes})
        raise ValueError("unknown offer_id")

    async def release(self, request: Request) -> Response:
        """Deliver now."""
        body = await _read_as(request, Release)
        return answer({"released": self._supplier.deliveries.release(body.order_id)})

    async def set_release_date(self, request: Request) -> Response:
        """Release a pre-order at another time, for whom it is ordered already and for whom it will be."""
        body = await _read_as(request, ReleaseDate)
        if (body.release_date is None) == (body.seconds is None):
            raise ValueError("give either release_date or seconds")
        date = body.release_date or exact_moment(self._supplier.clock() + (body.seconds or 0))
        self._supplier.deliveries.set_release_date(body.product_id, date)
        return answer({"product_id": body.product_id, "release_date": date})

    async def cancel(self, request: Request) -> Response:
        """Cancel an order."""
        body = await _read_as(request, Cancel)
        if not self._supplier.deliveries.cancel(body.order_id):
            raise ValueError("unknown order_id")
        return answer({"order_id": body.order_id})

    async def refund(self, request: Request) -> Response:
        """Take keys back without being asked."""
        body = await _read_as(request, Refund)
        return answer({"taken": self._supplier.deliveries.take_back(body.order_id, body.keys)})

    async def claim(self, request: Request) -> Response:
        """Mark keys as claimed."""
        body = await _read_as(request, Claim)
        with self._supplier.store.transaction() as connection:
            claimed = connection.execute(
                "UPDATE keys SET claimed = 1 WHERE order_number IN (SELECT number FROM orders WHERE order_id = ?)",
                (body.order_id,),
            ).rowcount
        return answer({"claimed": claimed})

    async def webhooks(self, _request: Request) -> Response:
        """Tell what became of the webhooks."""
        return answer(self._supplier.webhooks.as_json())

    async def probe(self, _request: Request) -> Response:
        """Send what the dashboard's test button sends."""
        self._supplier.webhooks.probe()
        return answer({}, 202)

    async def flood(self, request: Request) -> Response:
        """Send updates of products that were never sold here."""
        body = await _read_as(request, Flood)
        now = self._supplier.clock()
        self._supplier.webhooks.flood(body.count, per_second=body.per_second, updated_at=now)
        return answer({"count": body.count}, 202)

    async def enable_webhooks(self, request: Request) -> Response:
        """Let the endpoint have webhooks again."""
        self._supplier.webhooks.enable()
        return await self.webhooks(request)

    async def disable_webhooks(self, request: Request) -> Response:
        """Disable the endpoint as if it had failed too often."""
        self._supplier.webhooks.disable()
        return await self.webhooks(request)

    async def reset(self, _request: Request) -> Response:
        """Start again with an empty book and a full stock."""
        self._supplier.reset()
        return answer({"status": "ok"})


async def _wrong_body(_request: Request, error: Exception) -> Response:
    if isinstance(error, ValidationError):
        message = json.loads(error.json(include_url=False, include_context=False, include_input=False))
        return JSONResponse({"error": message}, 400)
    return JSONResponse({"error": str(error)}, 400)


def control_app(supplier: Supplier) -> Starlette:
    """Return the ASGI application of the control port."""
    handlers = {ValueError: _wrong_body, ValidationError: _wrong_body}
    return Starlette(routes=Control(supplier).routes(), exception_handlers=handlers)
