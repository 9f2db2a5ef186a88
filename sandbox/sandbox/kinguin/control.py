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
    POST /release, /claim              deliver now; mark keys as used
    GET  /webhooks, POST /webhooks/probe
    POST /reset                        an empty book and a full stock
"""

import base64
import binascii
import json
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.kinguin.app import answer
from sandbox.kinguin.catalogue import BY_ID, PRODUCTS, TEXT, product_json
from sandbox.kinguin.deliveries import picture_serial
from sandbox.kinguin.faults import Rule
from sandbox.kinguin.ledger import ledger_json
from sandbox.kinguin.moments import moment
from sandbox.kinguin.pictures import PICTURE_TYPES
from sandbox.kinguin.supplier import Supplier

_MOST_BODY_BYTES = 4 * 1024 * 1024
_Money = Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
_RULES: TypeAdapter[list[Rule]] = TypeAdapter(list[Rule])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Plant(_Body):
    """A key for the head of a product's stock. A picture comes as base64, or is drawn from `shown`."""

    product_id: str
    type: str = TEXT
    serial: str | None = Field(default=None, max_length=2_000_000)
    shown: str | None = Field(default=None, max_length=40)


class _Balance(_Body):
    """`balance` sets it, `add` moves it (negative takes away)."""

    balance: _Money | None = None
    add: _Money | None = None


class _Stock(_Body):
    """New price or stock of an offer; what is absent stays."""

    offer_id: str
    price: _Money | None = None
    text: _Count | None = None
    image: _Count | None = None
    promised: _Count | None = None


class _Release(_Body):
    """Deliver now what is held, promised or awaits its release date: of one order, or of all."""

    order_id: str | None = None


class _Claim(_Body):
    """Mark keys of an order as claimed, so that they cannot be returned."""

    order_id: str


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
            Route("/claim", self.claim, methods=["POST"]),
            Route("/webhooks", self.webhooks, methods=["GET"]),
            Route("/webhooks/probe", self.probe, methods=["POST"]),
            Route("/reset", self.reset, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """Tell that the simulator is up."""
        return answer({"status": "ok"})

    async def ledger(self, request: Request) -> Response:
        """Tell what was sold; `?external_id=` or `?order_id=` for one order."""
        query = request.query_params
        return answer(
            ledger_json(self._supplier.store, external_id=query.get("external_id"), order_id=query.get("order_id"))
        )

    async def requests(self, _request: Request) -> Response:
        """Tell what was asked."""
        return answer(self._supplier.traffic.as_json())

    async def catalogue(self, _request: Request) -> Response:
        """Tell what is in the catalogue, sold out or not."""
        store = self._supplier.store
        products = [
            product_json(product, store.stock_of(product), updated_at=moment(store.stock_updated_at(product)))
            for product in PRODUCTS
        ]
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
        body = await _read_as(request, _Plant)
        if body.product_id not in BY_ID:
            raise ValueError("unknown product_id")
        serial, shown = _planted(body)
        with self._supplier.store.transaction() as connection:
            connection.execute(
                "INSERT INTO planted (product_id, type, serial, shown) VALUES (?, ?, ?, ?)",
                (body.product_id, body.type, serial, shown),
            )
        return answer({"product_id": body.product_id, "type": body.type, "serial": serial, "shown": shown}, 201)

    async def set_balance(self, request: Request) -> Response:
        """Set or move the account's balance."""
        body = await _read_as(request, _Balance)
        store = self._supplier.store
        if (body.balance is None) == (body.add is None):
            raise ValueError("give either balance or add")
        with store.transaction():
            amount = body.add if body.add is not None else (body.balance or Decimal(0)) - store.balance
            store.move_balance(amount, now=self._supplier.clock(), reason="control")
        return answer({"balance": str(store.balance)})

    async def set_stock(self, request: Request) -> Response:
        """Change an offer's price or stock."""
        body = await _read_as(request, _Stock)
        store = self._supplier.store
        for product in PRODUCTS:
            for stock in store.stock_of(product):
                if stock.offer.offer_id == body.offer_id:
                    changes = body.model_dump(exclude_none=True, exclude={"offer_id"})
                    with store.transaction():
                        store.set_stock(replace(stock, **changes), now=self._supplier.clock())
                    return answer({"offer_id": body.offer_id, **changes})
        raise ValueError("unknown offer_id")

    async def release(self, request: Request) -> Response:
        """Deliver now."""
        body = await _read_as(request, _Release)
        return answer({"released": self._supplier.deliveries.release(body.order_id)})

    async def claim(self, request: Request) -> Response:
        """Mark keys as claimed."""
        body = await _read_as(request, _Claim)
        with self._supplier.store.transaction() as connection:
            claimed = connection.execute(
                "UPDATE keys SET claimed = 1 WHERE order_number IN (SELECT number FROM orders WHERE order_id = ?)",
                (body.order_id,),
            ).rowcount
        return answer({"claimed": claimed})

    async def webhooks(self, _request: Request) -> Response:
        """Tell what became of the webhooks."""
        webhooks = self._supplier.webhooks
        return answer({**asdict(webhooks.counts), "waiting": webhooks.waiting})

    async def probe(self, _request: Request) -> Response:
        """Send what the dashboard's test button sends."""
        self._supplier.webhooks.probe()
        return answer({}, 202)

    async def reset(self, _request: Request) -> Response:
        """Start again with an empty book and a full stock."""
        self._supplier.reset()
        return answer({"status": "ok"})


def _planted(body: _Plant) -> tuple[str, str]:
    """Return serial and what it shows. Raises ValueError."""
    if body.type == TEXT:
        if not body.serial:
            raise ValueError("a text key needs a serial")
        return body.serial, body.serial
    if body.type not in PICTURE_TYPES:
        raise ValueError("unknown type")
    if body.serial is None:
        if not body.shown:
            raise ValueError("a picture key needs a serial or what is shown")
        return picture_serial(body.shown, body.type), body.shown
    try:
        base64.b64decode(body.serial, validate=True)
    except binascii.Error:
        raise ValueError("the serial of a picture key is base64") from None
    return body.serial, body.shown or ""


async def _wrong_body(_request: Request, error: Exception) -> Response:
    if isinstance(error, ValidationError):
        message = json.loads(error.json(include_url=False, include_context=False, include_input=False))
        return JSONResponse({"error": message}, 400)
    return JSONResponse({"error": str(error)}, 400)


def control_app(supplier: Supplier) -> Starlette:
    """Return the ASGI application of the control port."""
    handlers = {ValueError: _wrong_body, ValidationError: _wrong_body}
    return Starlette(routes=Control(supplier).routes(), exception_handlers=handlers)
