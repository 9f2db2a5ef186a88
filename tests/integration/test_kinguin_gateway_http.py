"""The HTTP client against a server that answers whatever it is told, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.failpoints import configure_failpoints
from kinguin_gateway.adapters import kinguin_http
from kinguin_gateway.adapters.kinguin_http import MOST_BYTES, KinguinHttp
from kinguin_gateway.domain.guard import NoAnswer, NotSent, Outcome, Rejected, Taken, Unreadable, classify
from kinguin_gateway.errors import SupplierUnauthorized, SupplierUnavailable
from kinguin_gateway.ports.supplier import SendWindow

from tests.unit.kinguin_gateway.fakes import INTENT, a_turnstile

ORDER = {
    "orderId": "PHS84FJAG5U",
    "orderExternalId": INTENT.external_id,
    "status": "processing",
    "paymentPrice": "19.98",
    "products": [{"productId": INTENT.product_id, "qty": 2, "name": "Counter-Strike: Source", "keys": []}],
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Scripted:
    """A server that keeps what it hears. `answer` returns status and body for a request; None hangs up."""

    heard: list[bytes] = field(default_factory=list)
    answer: Callable[[str], tuple[int, bytes] | None] = lambda _target: (200, b"{}")
    base: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                self.heard.append(head + await reader.readexactly(length))
                answer = self.answer(head.split()[1].decode())
                if answer is None:
                    return
                status, body = answer
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: aplication/json\r\ncontent-length: %d\r\n" % (status, len(body))
                )
                writer.write(b"location: http://127.0.0.1:1/elsewhere\r\n\r\n" + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def says(self, content: object, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.answer = lambda _target: (status, body)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    listening = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.base = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/esa/api"
    yield scripted
    listening.close()


class PausableClock(SystemClock):
    """A clock that can be told that the process was stopped for a while."""

    def __init__(self) -> None:
        self.stopped = 0.0

    def elapsed(self) -> float:
        return super().elapsed() + self.stopped


@asynccontextmanager
async def client_of(base: str, *, auth: str = "x-api-key", seconds: float = 2.0) -> AsyncIterator[KinguinHttp]:
    async with KinguinHttp.open(
        base,
        api_key="the-api-key",
        auth=auth,
        turnstile=a_turnstile(SystemClock(), concurrency=4),
        concurrency=4,
        call_limit=timedelta(seconds=seconds),
    ) as client:
        yield client


@pytest.fixture
async def client(server: Scripted) -> AsyncIterator[KinguinHttp]:
    async with client_of(server.base) as client:
        yield client


def a_window(seconds: float = 2.0, clock: SystemClock | None = None) -> SendWindow:
    return SendWindow(clock or SystemClock(), timedelta(seconds=seconds))


async def test_k13_an_order_goes_out_whole_with_an_exact_price(client: KinguinHttp, server: Scripted) -> None:
    server.says(ORDER, 201)
    reply = await client.place_order(INTENT, a_window())
    assert isinstance(reply, Taken)
    assert reply.order.charged_cents == 1998
    (request,) = server.heard
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /esa/api/v2/order HTTP/1.1")
    assert b"transfer-encoding" not in head.lower()
    assert b"x-api-key: the-api-key" in head.lower()
    assert body == (
        b'{"orderExternalId":"kf-0001","products":[{"productId":"5c9b5f6b2539a4e8f172916a","qty":2,"price":12.99}]}'
    )


async def test_k2_the_key_may_be_shown_as_a_bearer_token(server: Scripted) -> None:
    async with client_of(server.base, auth="bearer") as client:
        server.says({"balance": 1.5})
        assert (await client.check()).balance_cents == 150
    assert b"authorization: bearer the-api-key" in server.heard[0].lower()
    assert b"x-api-key" not in server.heard[0].lower()


async def test_a_process_that_was_stopped_before_it_could_send_sends_not_one_byte(
    client: KinguinHttp, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = PausableClock()
    connects = asyncio.get_running_loop().create_connection

    async def stop_while_connecting(*arguments: Any, **options: Any) -> Any:
        connected = await connects(*arguments, **options)
        # Longer than the window, and the loop's own timers know nothing of it.
        clock.stopped = 3600.0
        return connected

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", stop_while_connecting)
    assert isinstance(await client.place_order(INTENT, a_window(30, clock)), NotSent)
    await asyncio.sleep(0.1)
    assert server.heard == []


async def test_a_window_that_ended_is_not_even_tried(client: KinguinHttp, server: Scripted) -> None:
    assert isinstance(await client.place_order(INTENT, a_window(0)), NotSent)
    assert isinstance(await client.place_order(INTENT, a_window(-1)), NotSent)
    assert server.heard == []


async def test_k64_a_connection_that_is_cut_after_the_order_went_out_leaves_us_in_doubt(
    client: KinguinHttp, server: Scripted
) -> None:
    server.answer = lambda _target: None
    assert isinstance(await client.place_order(INTENT, a_window()), NoAnswer)
    assert len(server.heard) == 1


async def test_k64_a_silent_supplier_leaves_us_in_doubt_when_the_window_ends() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(listen, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with client_of(base) as client:
        began = asyncio.get_running_loop().time()
        reply = await client.place_order(INTENT, a_window(0.3))
        assert asyncio.get_running_loop().time() - began < 1
    assert reply == NoAnswer("TimeoutError")
    assert len(heard) == 1
    listening.close()


async def test_a_supplier_that_cannot_be_reached_was_sent_nothing() -> None:
    async with client_of("http://127.0.0.1:1/esa/api") as client:
        assert isinstance(await client.place_order(INTENT, a_window()), NotSent)
        health = await client.check()
        assert (health.reachable, health.authorized) == (False, False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (201, b"<html>"),
        (201, b'{"orderId": 5'),
        (201, b'{"status": "processing"}'),
        (201, b'{"orderId": "A", "status": "processing", "totalQty": NaN}'),
        (400, b"[]"),
        (401, b"<html>"),
        (302, b"{}"),
        (201, b"[" * 100_000),
    ],
)
async def test_k64_an_unreadable_body_is_in_doubt(
    client: KinguinHttp, server: Scripted, status: int, body: bytes
) -> None:
    server.says(body, status)
    assert classify(await client.place_order(INTENT, a_window()), INTENT) is Outcome.IN_DOUBT


async def test_k3_a_401_is_read_whatever_its_body_has(client: KinguinHttp, server: Scripted) -> None:
    server.says({"type": "Unauthorized", "status": 401, "trace": "t-1"}, 401)
    reply = await client.place_order(INTENT, a_window())
    assert isinstance(reply, Rejected)
    assert (reply.problem.kind, reply.problem.detail, reply.problem.trace) == ("Authorization", "Unauthorized", "t-1")
    with pytest.raises(SupplierUnauthorized) as caught:
        await client.read_product("x")
    assert caught.value.metadata["trace"] == "t-1"
    server.says(b"<html>", 403)
    with pytest.raises(SupplierUnauthorized):
        await client.read_product("x")


async def test_an_answer_without_end_is_given_up(client: KinguinHttp, server: Scripted) -> None:
    server.says(ORDER | {"padding": "x" * MOST_BYTES}, 201)
    reply = await client.place_order(INTENT, a_window())
    assert isinstance(reply, Unreadable)
    with pytest.raises(SupplierUnavailable):
        await client.read_order("PHS84FJAG5U")


async def test_a_fault_after_the_answer_is_a_doubt_and_one_before_is_none(
    client: KinguinHttp, server: Scripted
) -> None:
    server.says(ORDER, 201)
    try:
        configure_failpoints("kinguin_gateway.after_place_order=error")
        assert isinstance(await client.place_order(INTENT, a_window()), NoAnswer)
        configure_failpoints("kinguin_gateway.before_place_order=error")
        assert isinstance(await client.place_order(INTENT, a_window()), NotSent)
    finally:
        configure_failpoints("")
    assert len(server.heard) == 1


def pages_of(orders: list[dict[str, Any]], *, counted: int, size: int = 100) -> Callable[[str], tuple[int, bytes]]:
    def answer(target: str) -> tuple[int, bytes]:
        page = int(target.partition("page=")[2].partition("&")[0])
        content = {"results": orders[(page - 1) * size : page * size], "item_count": counted}
        return 200, json.dumps(content).encode()

    return answer


def others(count: int) -> list[dict[str, Any]]:
    return [ORDER | {"orderId": f"OTHER{number}", "orderExternalId": f"kf-other-{number}"} for number in range(count)]


async def test_k43_a_search_that_ignores_the_filter_is_filtered_here(client: KinguinHttp, server: Scripted) -> None:
    server.answer = pages_of([*others(150), ORDER], counted=151)
    lookup = await client.find_orders(INTENT.external_id, start_time=NOW)
    assert [order.supplier_order_id for order in lookup.orders] == ["PHS84FJAG5U"]
    assert (lookup.complete, lookup.start_time) == (True, NOW)
    assert len(server.heard) == 2
    assert b"orderExternalId=kf-0001&page=1&limit=100" in server.heard[0]


@pytest.mark.parametrize(
    ("orders", "counted", "complete"),
    [
        ([], 0, True),
        ([], 1, False),
        (others(3), 5, False),
        (others(3), 3, True),
        ([*others(99), others(1)[0]], 100, False),
        (others(5000), 5000, False),
    ],
    ids=["none", "one that is not shown", "two that are not shown", "all", "one twice", "without end"],
)
async def test_k9_a_search_is_complete_only_when_everything_counted_was_seen(
    client: KinguinHttp,
    server: Scripted,
    orders: list[dict[str, Any]],
    counted: int,
    complete: bool,  # noqa: FBT001 # a column of the table above
) -> None:
    server.answer = pages_of(orders, counted=counted)
    assert (await client.find_orders(INTENT.external_id, start_time=NOW)).complete is complete


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, {"kind": "Error", "status": 500}),
        (200, b"not json"),
        (200, {"results": [{"status": "processing"}], "item_count": 1}),
        (404, {"kind": "Http", "status": 404}),
        (429, {}),
    ],
)
async def test_k64_a_failed_search_is_an_error_and_never_empty(
    client: KinguinHttp, server: Scripted, status: int, content: object
) -> None:
    server.says(content, status)
    with pytest.raises(SupplierUnavailable):
        await client.find_orders(INTENT.external_id, start_time=NOW)


async def test_what_is_wrong_is_told_by_field_and_without_its_value(client: KinguinHttp, server: Scripted) -> None:
    server.says([{"id": "k1", "serial": ["PLANT-EDKEY-1"], "type": "text/plain"}])
    with pytest.raises(SupplierUnavailable, match=r"0\.serial") as caught:
        _ = [page async for page in client.key_pages("PHS84FJAG5U")]
    assert "PLANT" not in repr(caught.value) + repr(caught.value.__context__) + str(caught.value.metadata)


async def test_k44_pages_of_keys_are_read_until_a_short_one(client: KinguinHttp, server: Scripted) -> None:
    keys = [{"id": f"k{number}", "serial": f"AAAA-{number}", "type": "text/plain"} for number in range(250)]

    def answer(target: str) -> tuple[int, bytes]:
        page = int(target.partition("page=")[2].partition("&")[0])
        return 200, json.dumps(keys[(page - 1) * 100 : page * 100]).encode()

    server.answer = answer
    pages = [page async for page in client.key_pages("PHS84FJAG5U")]
    assert [len(page) for page in pages] == [100, 100, 50]


async def test_an_endless_listing_of_keys_ends(
    client: KinguinHttp, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinguin_http, "MOST_KEY_PAGES", 3)
    server.says([{"id": "k", "serial": "AAAA", "type": "text/plain"}] * 100)
    assert len([page async for page in client.key_pages("PHS84FJAG5U")]) == 3


async def test_a_redirect_is_not_followed(client: KinguinHttp, server: Scripted) -> None:
    server.says({}, 302)
    with pytest.raises(SupplierUnavailable):
        await client.read_order("PHS84FJAG5U")


async def test_an_id_of_the_supplier_cannot_leave_its_place_in_the_path(client: KinguinHttp, server: Scripted) -> None:
    server.says(ORDER)
    await client.read_order("../v1/balance?x=1")
    assert server.heard[0].startswith(b"GET /esa/api/v1/order/..%2Fv1%2Fbalance%3Fx=1 ")


async def test_a_read_that_takes_too_long_is_given_up() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with client_of(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", seconds=0.2) as client:
        with pytest.raises(SupplierUnavailable, match="TimeoutError"):
            await client.read_order("PHS84FJAG5U")
    listening.close()
