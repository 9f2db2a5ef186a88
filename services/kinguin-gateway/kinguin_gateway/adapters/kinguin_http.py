"""The supplier over HTTP: one pool of connections, a deadline and a size limit on every call, no secret in any log."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import httpx
from chassis.clock import Clock
from chassis.deadline import remaining
from chassis.failpoints import failpoint
from chassis.tracing import span
from httpx_aiohttp import AiohttpTransport
from opentelemetry.trace import SpanKind

from kinguin_gateway.adapters.kinguin_json import (
    UnreadableAnswer,
    balance_from_json,
    keys_from_json,
    order_from_json,
    order_page_from_json,
    order_to_json,
    parse_json,
    problem_from_json,
    product_from_json,
)
from kinguin_gateway.domain.guard import Lookup, NoAnswer, NotSent, Rejected, Reply, Taken, Unreadable
from kinguin_gateway.domain.purchase import Intent, Product, SupplierOrder
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import SUPPLIER_SECONDS
from kinguin_gateway.pacing import Turnstile
from kinguin_gateway.ports import SendWindow, SuppliedKey, SupplierHealth

PAGE = 100
# A page of a hundred picture keys is the largest answer there is; what is larger is none of the supplier's.
MOST_KEYS_BYTES = 64 * 1024 * 1024
MOST_BYTES = 8 * 1024 * 1024
# Above these a listing has no end, which is the supplier's mistake and must not become our loop.
MOST_SEARCH_PAGES = 20
MOST_KEY_PAGES = 40
# A connection that the supplier closes while we send on it makes a purchase doubtful; let go of idle ones before.
KEEP_ALIVE_SECONDS = 4.0
CONNECT_SECONDS = 5.0
USER_AGENT = "keyferry/1.0"

_OK = range(200, 300)
_NOT_FOUND = 404
_NOT_LET_IN = frozenset({401, 403})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class _TooLarge(Exception):
    """The answer is larger than any that the contract knows."""


class _WindowEnded(Exception):
    """The window of the attempt ended before the connection stood."""


class _Order:
    """The body of one attempt, handed over once, when the connection stands and only while the window is open.

    aiohttp asks for it after it has a connection and writes headers and body together, so that the check here is the
    last thing that happens before the bytes go to the socket.
    """

    def __init__(self, body: bytes, window: SendWindow) -> None:
        self._body = body
        self._window = window
        self.handed_over = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.handed_over:
            raise RuntimeError("an attempt is sent once")
        if self._window.seconds_left() <= 0:
            raise _WindowEnded
        self.handed_over = True
        yield self._body


class KinguinHttp:
    """Implements `kinguin_gateway.ports.Supplier`."""

    def __init__(self, client: httpx.AsyncClient, turnstile: Turnstile, *, call_limit: timedelta) -> None:
        self._client = client
        self._turnstile = turnstile
        self._call_seconds = call_limit.total_seconds()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, base: str, *, api_key: str, auth: str, clock: Clock, limits: tuple[int, float], call_limit: timedelta
    ) -> AsyncIterator["KinguinHttp"]:
        """Make a pool; `limits` are the most calls open at one time and the most begun per second."""
        concurrency, per_second = limits
        # At its usual level it would write every URL.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        shown = {"x-api-key": api_key} if auth == "x-api-key" else {"authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(
            base_url=base.rstrip("/") + "/",
            # No compression: the limits on size are limits on memory.
            headers={
                **shown,
                "user-agent": USER_AGENT,
                "accept": "application/json",
                "accept-encoding": "identity",
            },
            transport=AiohttpTransport(client=lambda: _session(concurrency)),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            follow_redirects=False,
        ) as client:
            turnstile = Turnstile(clock, concurrency=concurrency, per_second=per_second)
            yield cls(client, turnstile, call_limit=call_limit)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """See the port."""
        return self._turnstile.turn()

    async def place_order(self, intent: Intent, window: SendWindow) -> Reply:
        """See the port."""
        order = _Order(body := order_to_json(intent), window)
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        try:
            await failpoint("kinguin_gateway.before_place_order")
            async with asyncio.timeout(window.seconds_left()):
                request = self._client.build_request("POST", "v2/order", content=order, headers=headers)
                answer = await self._exchange("place_order", request, MOST_BYTES)
            await failpoint("kinguin_gateway.after_place_order")
        except _TooLarge:
            return Unreadable("the answer is too large")
        except Exception as error:  # noqa: BLE001 # whatever went wrong, only one thing counts: did bytes leave us
            why = type(error).__name__
            return NoAnswer(why) if order.handed_over else NotSent(why)
        try:
            content = parse_json(answer.body)
            if answer.status in _OK:
                return Taken(order_from_json(content))
            return Rejected(answer.status, problem_from_json(answer.status, content))
        except UnreadableAnswer as error:
            return Unreadable(f"status {answer.status}, {error}")

    async def find_orders(self, external_id: str, *, start_time: datetime) -> Lookup:
        """See the port. The supplier's filter is not relied upon: only an exact match is ours (K43)."""
        seen: dict[str, SupplierOrder] = {}
        complete = False
        for page in range(1, MOST_SEARCH_PAGES + 1):
            query = {"orderExternalId": external_id, "page": page, "limit": PAGE}
            orders, counted = await self._read("find_orders", "v1/order", order_page_from_json, query=query)
            seen.update((order.supplier_order_id, order) for order in orders)
            complete = len(orders) < PAGE and len(seen) >= counted
            if complete or not orders:
                break
        ours = [order for order in seen.values() if order.external_id == external_id]
        return Lookup(start_time, ours, complete)

    async def read_order(self, supplier_order_id: str) -> SupplierOrder | None:
        """See the port."""
        path = f"v1/order/{quote(supplier_order_id, safe='')}"
        return await self._read_or_none("read_order", path, order_from_json)

    async def key_pages(self, supplier_order_id: str) -> AsyncIterator[Sequence[SuppliedKey]]:
        """See the port."""
        path = f"v2/order/{quote(supplier_order_id, safe='')}/keys"
        for page in range(1, MOST_KEY_PAGES + 1):
            query = {"page": page, "limit": PAGE}
            keys = await self._read("list_keys", path, keys_from_json, query=query, most_bytes=MOST_KEYS_BYTES)
            yield keys
            if len(keys) < PAGE:
                return

    async def read_product(self, product_id: str) -> Product | None:
        """See the port."""
        path = f"v2/products/{quote(product_id, safe='')}"
        return await self._read_or_none("read_product", path, product_from_json)

    async def check(self) -> SupplierHealth:
        """See the port."""
        try:
            balance = await self._read("read_balance", "v1/balance", balance_from_json)
        except SupplierUnauthorized as error:
            return SupplierHealth(reachable=True, authorized=False, detail=error.message)
        except SupplierUnavailable as error:
            return SupplierHealth(reachable="status" in error.metadata, authorized=False, detail=error.message)
        return SupplierHealth(reachable=True, authorized=True, balance_cents=balance)

    async def _read_or_none(self, operation: str, path: str, parse: Callable[[Any], T]) -> T | None:
        try:
            return await self._read(operation, path, parse)
        except SupplierUnavailable as error:
            if error.metadata.get("status") == str(_NOT_FOUND):
                return None
            raise

    async def _read(
        self,
        operation: str,
        path: str,
        parse: Callable[[Any], T],
        *,
        query: dict[str, Any] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> T:
        await failpoint(f"kinguin_gateway.before_{operation}")
        async with self._turnstile.turn():
            request = self._client.build_request("GET", path, params=query)
            try:
                async with asyncio.timeout(remaining(self._call_seconds)):
                    answer = await self._exchange(operation, request, most_bytes)
            except _TooLarge:
                raise SupplierUnavailable("the supplier's answer is too large", metadata={"status": "200"}) from None
            except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
                raise SupplierUnavailable(
                    f"the supplier does not answer ({type(error).__name__})", metadata={"operation": operation}
                ) from None
        await failpoint(f"kinguin_gateway.after_{operation}")
        return _understand(operation, answer, parse)

    async def _exchange(self, operation: str, request: httpx.Request, most_bytes: int) -> _Answer:
        began, outcome = time.perf_counter(), "no answer"
        try:
            with span(f"supplier {operation}", kind=SpanKind.CLIENT):
                response = await self._client.send(request, stream=True)
                try:
                    answer = _Answer(response.status_code, await _collect(response, most_bytes))
                finally:
                    await response.aclose()
            outcome = f"{answer.status // 100}xx"
            return answer
        finally:
            SUPPLIER_SECONDS.labels(operation, outcome).observe(time.perf_counter() - began)


def _session(concurrency: int) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=concurrency, ssl=ssl.create_default_context(), keepalive_timeout=KEEP_ALIVE_SECONDS
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _collect(response: httpx.Response, most_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most_bytes:
            raise _TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _understand(operation: str, answer: _Answer, parse: Callable[[Any], T]) -> T:
    metadata = {"operation": operation, "status": str(answer.status)}
    try:
        content = parse_json(answer.body)
        if answer.status in _OK:
            return parse(content)
        problem = problem_from_json(answer.status, content)
    except UnreadableAnswer as error:
        if answer.status in _NOT_LET_IN:
            raise SupplierUnauthorized("the supplier does not let us in", metadata=metadata) from None
        raise SupplierUnavailable(f"the supplier's answer is unreadable: {error}", metadata=metadata) from None
    metadata |= {"kind": problem.kind, "detail": problem.detail, "trace": problem.trace}
    if problem.kind == "Authorization" or answer.status in _NOT_LET_IN:
        raise SupplierUnauthorized("the supplier does not let us in", metadata=metadata)
    raise SupplierUnavailable(f"the supplier failed: {answer.status} {problem.kind}", metadata=metadata)
