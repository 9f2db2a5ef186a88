"""The supplier over HTTP: one pool of connections, a deadline and a size limit on every call, no secret in any log."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import httpx
from chassis.deadline import remaining
from chassis.failpoints import failpoint
from chassis.tracing import span
from httpx_aiohttp import AiohttpTransport
from opentelemetry.trace import SpanKind

from kinguin_gateway.adapters.kinguin_json import (
    UnreadableAnswer,
    balance_from_json,
    key_states_from_json,
    keys_from_json,
    order_from_json,
    order_page_from_json,
    order_to_json,
    parse_json,
    problem_from_json,
    product_from_json,
    products_from_json,
)
from kinguin_gateway.adapters.order_walk import PAGE, Walk, moment_to_query
from kinguin_gateway.domain.guard import Lookup, NoAnswer, NotSent, Rejected, Reply, Taken, Unreadable
from kinguin_gateway.domain.purchase import Intent, Product, SupplierOrder
from kinguin_gateway.domain.returning import ReturnReply, TakenReturn
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.metrics import SUPPLIER_SECONDS
from kinguin_gateway.pacing import Turnstile
from kinguin_gateway.ports.supplier import (
    KEYS_PAGE,
    OrderFilter,
    SendWindow,
    SuppliedKey,
    SupplierHealth,
)

# A page of a hundred picture keys is the largest answer there is; what is larger is none of the supplier's.
MOST_KEYS_BYTES = 64 * 1024 * 1024
MOST_BYTES = 8 * 1024 * 1024
# Above these a listing has no end, which is the supplier's mistake and must not become our loop.
MOST_SEARCH_PAGES = 20
MOST_KEY_PAGES = 40
MOST_LISTED_PAGES = 10_000
# A connection that the supplier closes while we send on it makes a purchase doubtful; let go of idle ones before.
KEEP_ALIVE_SECONDS = 4.0
CONNECT_SECONDS = 5.0
USER_AGENT = "keyferry/1.0"

_OK = range(200, 300)
_NOT_FOUND = 404
_NOT_LET_IN = frozenset({401, 403})
_TOO_MANY_REQUESTS, _SERVICE_UNAVAILABLE = 429, 503
_FAILED = frozenset({"no answer", "5xx"})
_HOLD_UNTOLD = timedelta(seconds=1)
_MOST_DIGITS = 6
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
    """Implements `kinguin_gateway.ports.supplier.Supplier`."""

    def __init__(self, client: httpx.AsyncClient, turnstile: Turnstile, *, call_limit: timedelta) -> None:
        self._client = client
        self._turnstile = turnstile
        self._call_seconds = call_limit.total_seconds()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, base: str, *, api_key: str, auth: str, turnstile: Turnstile, concurrency: int, call_limit: timedelta
    ) -> AsyncIterator["KinguinHttp"]:
        """Make a pool of at most `concurrency` connections; the turnstile says when each may be used."""
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
            yield cls(client, turnstile, call_limit=call_limit)

    def turn(self) -> AbstractAsyncContextManager[object]:
        """See the port."""
        return self._turnstile.turn(read=False)

    async def place_order(self, intent: Intent, window: SendWindow, *, unit_cents: int | None = None) -> Reply:
        """See the port."""
        order = _Order(body := order_to_json(intent, unit_cents), window)
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

    async def key_pages(self, supplier_order_id: str, *, first: int = 1) -> AsyncGenerator[Sequence[SuppliedKey], None]:
        """See the port."""
        path = f"v2/order/{quote(supplier_order_id, safe='')}/keys"
        for page in range(first, first + MOST_KEY_PAGES):
            query = {"page": page, "limit": KEYS_PAGE}
            keys = await self._read("list_keys", path, keys_from_json, query=query, most_bytes=MOST_KEYS_BYTES)
            if not keys:
                return
            yield keys

    async def search_orders(self, wanted: OrderFilter) -> AsyncGenerator[Sequence[SupplierOrder], None]:
        """See the port."""
        walk = Walk(wanted)
        for _ in range(MOST_LISTED_PAGES):
            query = {**walk.query, "page": walk.page, "limit": PAGE}
            orders, counted = await self._read("search_orders", "v1/order", order_page_from_json, query=query)
            yield walk.take(orders, counted)
            if walk.ended and walk.is_whole:
                return
            if walk.ended:
                raise SupplierUnavailable("the supplier counts more orders than it shows")
        raise SupplierUnavailable("there are more orders than one search shows; ask for a shorter time")

    async def return_keys(self, supplier_order_id: str) -> ReturnReply:
        """See the port."""
        path = f"v2/order/{quote(supplier_order_id, safe='')}/keys/return"
        try:
            await failpoint("kinguin_gateway.before_return_keys")
            async with self._turnstile.turn(read=False):
                request = self._client.build_request("POST", path)
                async with asyncio.timeout(remaining(self._call_seconds)):
                    answer = await self._exchange("return_keys", request, MOST_BYTES)
            await failpoint("kinguin_gateway.after_return_keys")
        except _TooLarge:
            return Unreadable("the answer is too large")
        except (SupplierUnavailable, httpx.ConnectError, httpx.ConnectTimeout) as error:
            return NotSent(type(error).__name__)
        except Exception as error:  # noqa: BLE001 # whatever went wrong, it may have been sent
            return NoAnswer(type(error).__name__)
        try:
            content = parse_json(answer.body)
            if answer.status in _OK:
                return TakenReturn(key_states_from_json(content))
            return Rejected(answer.status, problem_from_json(answer.status, content))
        except UnreadableAnswer as error:
            return Unreadable(f"status {answer.status}, {error}")

    async def changed_products(self, product_ids: Sequence[str], *, since: datetime | None) -> Sequence[Product]:
        """See the port."""
        query: dict[str, Any] = {"productId": ",".join(product_ids[:PAGE]), "limit": PAGE}
        if since is not None:
            query["updatedSince"] = moment_to_query(since)
        return await self._read("changed_products", "v1/products", products_from_json, query=query)

    async def read_balance(self) -> int:
        """See the port."""
        balance = await self._read("read_balance", "v1/balance", balance_from_json)
        if balance is None:
            raise SupplierUnavailable("the supplier's answer is unreadable: balance: missing or no number")
        return balance

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
            # Without a kind it is the page of a proxy, or of a host that is gone (K1), and no word of the supplier's.
            if error.metadata.get("status") == str(_NOT_FOUND) and error.metadata.get("kind"):
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
        async with self._turnstile.turn(read=True) as probe:
            request = self._client.build_request("GET", path, params=query)
            try:
                async with asyncio.timeout(remaining(self._call_seconds)):
                    answer = await self._exchange(operation, request, most_bytes, probe=probe)
            except _TooLarge:
                raise SupplierUnavailable("the supplier's answer is too large", metadata={"status": "200"}) from None
            except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
                raise SupplierUnavailable(
                    f"the supplier does not answer ({type(error).__name__})", metadata={"operation": operation}
                ) from None
        await failpoint(f"kinguin_gateway.after_{operation}")
        return _understand(operation, answer, parse)

    async def _exchange(
        self, operation: str, request: httpx.Request, most_bytes: int, *, probe: bool = False
    ) -> _Answer:
        began, outcome = time.perf_counter(), "no answer"
        try:
            with span(f"supplier {operation}", kind=SpanKind.CLIENT):
                response = await self._client.send(request, stream=True)
                try:
                    answer = _Answer(response.status_code, await _collect(response, most_bytes))
                finally:
                    await response.aclose()
            outcome = f"{answer.status // 100}xx"
            if (wait := wait_asked_for(answer.status, response.headers.get("retry-after"))) is not None:
                await self._turnstile.hold(wait)
            return answer
        finally:
            note = self._turnstile.note_probe if probe else self._turnstile.note
            note(answered=outcome not in _FAILED)
            SUPPLIER_SECONDS.labels(operation, outcome).observe(time.perf_counter() - began)


def wait_asked_for(status: int, retry_after: str | None) -> timedelta | None:
    """Return how long the supplier wants to be left alone (RFC 9110, 10.2.3: seconds, or a date); None: not at all.

    Only too many requests ask for it without saying how long.
    """
    if status == _TOO_MANY_REQUESTS:
        return _hold(retry_after) or _HOLD_UNTOLD
    return _hold(retry_after) if status == _SERVICE_UNAVAILABLE else None


def _hold(retry_after: str | None) -> timedelta | None:
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=int(text[:_MOST_DIGITS]))
    try:
        return max(parsedate_to_datetime(text) - datetime.now(UTC), timedelta(0))
    except (ValueError, TypeError):
        return None


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
