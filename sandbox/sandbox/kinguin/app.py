"""The supplier's public API over HTTP: authentication, one handler for each operation, and the faults around them."""

import asyncio
import hmac
import json
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.kinguin.connection import Cut
from sandbox.kinguin.garbling import dripping, garbled
from sandbox.kinguin.keypages import asked_window, tampered
from sandbox.kinguin.mischief import Operation, Rule
from sandbox.kinguin.moments import moment
from sandbox.kinguin.orders import OrderFilter
from sandbox.kinguin.problems import Refusal, problem_json, violation
from sandbox.kinguin.queries import Query
from sandbox.kinguin.rules import parse_place_order
from sandbox.kinguin.supplier import Supplier

logger = structlog.get_logger(__name__)

PREFIXES = ("", "/esa/api")
CONTRACT = Path(__file__).with_name("openapi.yaml")
_MOST_BODY_BYTES = 256 * 1024
_STATUSES = ("processing", "completed", "canceled", "refunded")

Handler = Callable[[Request], Awaitable[Response]]


def answer(body: object, status: int = HTTPStatus.OK) -> Response:
    """Render JSON. Money leaves as a number, as the contract has it (K13)."""
    return Response(json.dumps(body, default=_number), status_code=status, media_type="application/json")


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def _not_finite(_text: str) -> NoReturn:
    raise ValueError("not JSON")


async def read_body(request: Request) -> bytes:
    """Read a body of bounded size. Raises Refusal."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise Refusal("Http", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request body is too large.")
    return bytes(body)


def parse_json(body: bytes, content_type: str) -> object:
    """Read JSON; numbers with a fraction become decimals, never binary floats. Raises Refusal."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal("Http", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type must be application/json.")
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=_not_finite)
    except (ValueError, RecursionError, ArithmeticError):
        raise violation("The request body is not valid JSON.", "") from None


async def _pause(rule: Rule | None) -> None:
    if rule is not None:
        await asyncio.sleep(rule.seconds or 0)


class Api:
    """The eight operations of the contract."""

    def __init__(self, supplier: Supplier) -> None:
        self._supplier = supplier
        self._traces = random.Random(f"{supplier.settings.seed}/traces")  # noqa: S311 # a name, no secret

    def routes(self) -> list[BaseRoute]:
        """Return the routes, at the root and under the path that production has (K1)."""
        table: tuple[tuple[str, str, Operation, Handler], ...] = (
            ("GET", "/v1/balance", "getBalance", self.get_balance),
            ("GET", "/v2/products/{product_id}", "getProduct", self.get_product),
            ("GET", "/v1/products", "searchProducts", self.search_products),
            ("POST", "/v2/order", "placeOrder", self.place_order),
            ("GET", "/v1/order/{order_id}", "getOrder", self.get_order),
            ("GET", "/v1/order", "searchOrders", self.search_orders),
            ("GET", "/v2/order/{order_id}/keys", "listKeys", self.list_keys),
            ("POST", "/v2/order/{order_id}/keys/return", "returnKeys", self.return_keys),
        )
        return [
            Route(prefix + path, self._guarded(operation, handler), methods=[method])
            for prefix in PREFIXES
            for method, path, operation, handler in table
        ]

    def _guarded(self, operation: Operation, handler: Handler) -> Handler:
        """Wrap a handler in what may go wrong before it, in authentication, and in what may go wrong after it."""
        supplier, faults = self._supplier, self._supplier.faults

        async def guarded(request: Request) -> Response:
            supplier.traffic.asked(operation, supplier.clock())
            response = None if faults.take("reset_before", operation) else await self._act(request, operation, handler)
            if response is None or isinstance(response, Cut) or faults.take("drop_answer", operation):
                supplier.traffic.answered(operation, None)
                return Cut(reset=response is None)
            await _pause(faults.take_at("delay", operation, "after"))
            if (bad := faults.take_at("status", operation, "after")) is not None:
                response = self.problem(request, bad.refusal())
            supplier.traffic.answered(operation, response.status_code)
            if (garble := faults.take("garble", operation)) is not None and garble.body is not None:
                response = garbled(response, garble.body)
            if (drip := faults.take("drip", operation)) is not None:
                response = dripping(response, drip.seconds or 0)
            return response

        return guarded

    async def _act(self, request: Request, operation: Operation, handler: Handler) -> Response | None:
        """Answer a request; None where the client went away before it was fully sent."""
        faults = self._supplier.faults
        try:
            # Read before any delay: whoever gave up waiting has still ordered.
            request.state.body = await read_body(request)
            self._supplier.patience.refuse(faults, operation, self._supplier.clock())
            await _pause(faults.take_at("delay", operation, "before"))
            faults.refuse(operation)
            self._authenticate(request)
            return await handler(request)
        except ClientDisconnect:
            return None
        except Refusal as refusal:
            return self.problem(request, refusal)
        except Exception:
            logger.exception("operation failed", operation=operation)
            detail = "Internal error of the simulator."
            return self.problem(request, Refusal("Error", HTTPStatus.INTERNAL_SERVER_ERROR, detail))

    def _authenticate(self, request: Request) -> None:
        """Let in whoever shows the key, as `X-Api-Key` or as a bearer token (K2)."""
        expected = self._supplier.settings.api_key.encode()
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        for shown in (request.headers.get("x-api-key", ""), bearer):
            if hmac.compare_digest(shown.encode(), expected):
                return
        raise Refusal("Authorization", HTTPStatus.UNAUTHORIZED, "Bad authorization credentials.")

    def problem(self, request: Request, refusal: Refusal) -> Response:
        """Render a refusal."""
        body = problem_json(
            refusal,
            path=request.url.path,
            method=request.method,
            trace=f"{self._traces.getrandbits(40):010x}",
            timestamp=moment(self._supplier.clock()),
        )
        response = answer(body, refusal.status)
        response.headers.update(refusal.headers)
        return response if refusal.shape is None else garbled(response, refusal.shape)

    async def get_balance(self, _request: Request) -> Response:
        """Answer `getBalance`."""
        return answer({"balance": self._supplier.store.balance})

    async def get_product(self, request: Request) -> Response:
        """Answer `getProduct`; what is sold out is as if it were not there (K8)."""
        product = self._supplier.store.product(request.path_params["product_id"])
        body = self._supplier.product_json(product) if product is not None else {}
        if not body.get("totalQty"):
            raise Refusal("ProductUnavailable", HTTPStatus.NOT_FOUND, "The product was not found or is not available.")
        return answer(body)

    async def search_products(self, request: Request) -> Response:
        """Answer `searchProducts`."""
        query = Query(request)
        page, limit = query.page(), query.limit()
        ids, kinguin_ids = query.names("productId"), query.names("kinguinId")
        name, since = query.text("name", least=3), query.moment("updatedSince")
        with_text = query.choice("withText", ("yes",)) is not None
        by = query.choice("sortBy", ("kinguinId", "kingiunId", "updatedAt"))  # K11: the second is as it is documented
        field = "updatedAt" if by == "updatedAt" else "kinguinId"
        descending = query.choice("sortType", ("asc", "desc")) == "desc"
        found = [
            self._supplier.product_json(product)
            for product in self._supplier.store.products()
            if (ids is None or product.product_id in ids)
            and (kinguin_ids is None or str(product.kinguin_id) in kinguin_ids)
            and (name is None or name.lower() in product.name.lower())
            and (since is None or self._supplier.store.stock_updated_at(product) >= since)
        ]
        selling = [body for body in found if body["totalQty"] and (body["textQty"] or not with_text)]
        selling.sort(key=lambda body: (str(body[field]), body["productId"]), reverse=descending)
        start = (page - 1) * limit
        return answer({"results": selling[start : start + limit], "item_count": len(selling)})

    async def place_order(self, request: Request) -> Response:
        """Answer `placeOrder`."""
        content_type = request.headers.get("content-type", "application/json")
        order = parse_place_order(parse_json(request.state.body, content_type))
        supplier = self._supplier
        late = supplier.faults.take("commit_late", "placeOrder")
        if late is not None:
            supplier.late.take(order, supplier.faults.circumstances(), seconds=late.seconds or 0)
            supplier.deliveries.wake()
            return Cut(reset=False)
        supplier.faults.refuse_order(order)
        change = supplier.desk.place(order, supplier.faults.circumstances())
        supplier.deliveries.wake()
        supplier.announce(change)
        return answer(self._order("placeOrder", supplier.desk.get(change.order_id)), HTTPStatus.CREATED)

    def _order(self, operation: Operation, order: dict[str, object]) -> dict[str, object]:
        """Return an order with `paymentPrice` as it is documented or as it is shown: a string or a number."""
        if self._supplier.faults.take("payment_price_text", operation) is None:
            return order
        return {**order, "paymentPrice": str(order["paymentPrice"])}

    async def get_order(self, request: Request) -> Response:
        """Answer `getOrder`."""
        return answer(self._order("getOrder", self._supplier.desk.get(request.path_params["order_id"])))

    async def search_orders(self, request: Request) -> Response:
        """Answer `searchOrders`."""
        query = Query(request)
        preorder = query.choice("isPreorder", ("yes", "no"))
        wanted = OrderFilter(
            external_id=query.text("orderExternalId"),
            order_id=query.text("orderId"),
            product_id=query.text("productId"),
            status=query.choice("status", _STATUSES),
            is_preorder=None if preorder is None else preorder == "yes",
            created_from=query.moment("createdAtFrom"),
            created_to=query.moment("createdAtTo"),
        )
        results, count = self._supplier.desk.search(wanted, page=query.page(), limit=query.limit())
        return answer({"results": [self._order("searchOrders", order) for order in results], "item_count": count})

    async def list_keys(self, request: Request) -> Response:
        """Answer `listKeys`."""
        query = Query(request)
        page, limit = query.page(), query.limit()
        faults, order_id = self._supplier.faults, request.path_params["order_id"]
        window = asked_window(page, limit, faults)
        keys = self._supplier.desk.keys(order_id, window, claim=faults.claims_on_fetch())
        return answer(tampered(keys, order_id, faults))

    async def return_keys(self, request: Request) -> Response:
        """Answer `returnKeys`."""
        delays = self._supplier.faults.return_delays()
        keys = self._supplier.desk.give_back(request.path_params["order_id"], delays)
        self._supplier.deliveries.wake()
        return answer(keys)


async def _contract(_request: Request) -> Response:
    return FileResponse(CONTRACT, media_type="application/yaml")


def public_app(supplier: Supplier) -> Starlette:
    """Return the ASGI application of the public API."""
    api = Api(supplier)

    async def http_problem(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return api.problem(request, Refusal("Http", error.status_code, str(error.detail), headers=error.headers))

    contract = [Route(f"{prefix}/openapi.yaml", _contract) for prefix in PREFIXES]
    return Starlette(routes=[*api.routes(), *contract], exception_handlers={HTTPException: http_problem})
