"""What the HTTP client makes of answers that are no plain yes: waits asked for, pages of proxies, pages cut short."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from chassis.clock import SystemClock
from kinguin_gateway.adapters.kinguin_http import KinguinHttp, wait_asked_for
from kinguin_gateway.breaker import FIRST_PAUSE_SECONDS, WINDOW_CALLS, Breaker
from kinguin_gateway.domain.guard import NotSent, Outcome, Rejected, classify
from kinguin_gateway.domain.purchase import SupplierOrderState
from kinguin_gateway.errors import SupplierUnavailable
from kinguin_gateway.pacing import LONGEST_HOLD, Turnstile
from kinguin_gateway.ports.supplier import OrderFilter, SendWindow

from tests.unit.kinguin_gateway.fakes import INTENT, FakeSchedule
from tests.unit.simulated import SimulatedClock, simulate

PROBLEM = {"kind": "Http", "status": 404, "detail": "Not found.", "trace": "t-1"}
MINUTE = timedelta(minutes=1)


class KeptSchedule(FakeSchedule):
    """Keeps what it was told to hold."""

    def __init__(self, clock: SimulatedClock | SystemClock) -> None:
        super().__init__(clock, per_second=1000)
        self.held: list[timedelta] = []

    async def hold(self, wait: timedelta) -> None:
        self.held.append(wait)


class Store:
    """A client whose supplier answers as it is told."""

    def __init__(
        self,
        answer: Callable[[httpx.Request], httpx.Response],
        clock: SimulatedClock | SystemClock = SystemClock(),  # noqa: B008 # it has no state
    ) -> None:
        self.asked: list[httpx.Request] = []
        self.schedule = KeptSchedule(clock)
        self.breaker = Breaker(clock, lambda: 0.5)

        def handle(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            return answer(request)

        http = httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="https://supplier.example/esa/api/")
        turnstile = Turnstile(clock, self.schedule, self.breaker, concurrency=4)
        self.client = KinguinHttp(http, turnstile, call_limit=timedelta(seconds=5))


def says(status: int, content: object, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request: httpx.Response(status, headers=named, stream=httpx.ByteStream(body))


@pytest.mark.parametrize(
    ("status", "told", "wait"),
    [
        (429, "7", timedelta(seconds=7)),
        (429, None, timedelta(seconds=1)),
        (429, "0", timedelta(seconds=1)),
        (429, "soon", timedelta(seconds=1)),
        (429, "-5", timedelta(seconds=1)),
        (503, " 30 ", timedelta(seconds=30)),
        (503, None, None),
        (503, "soon", None),
        (503, "Wed, 21 Oct 2015 07:28:00 GMT", timedelta(0)),
        (500, "30", None),
        (200, "30", None),
    ],
)
def test_k7_only_a_busy_supplier_asks_to_be_left_alone(status: int, told: str | None, wait: timedelta | None) -> None:
    assert wait_asked_for(status, told) == wait


def test_k7_a_date_says_how_long_as_well() -> None:
    wait = wait_asked_for(503, format_datetime(datetime.now(UTC) + MINUTE, usegmt=True))
    assert wait is not None
    assert MINUTE - timedelta(seconds=5) < wait <= MINUTE


@pytest.mark.parametrize("status", [429, 503])
async def test_k7_a_wait_that_is_asked_for_when_reading_holds_every_replica(status: int) -> None:
    store = Store(says(status, PROBLEM, retry_after="9"))
    with pytest.raises(SupplierUnavailable):
        await store.client.read_balance()
    assert store.schedule.held == [timedelta(seconds=9)]


@pytest.mark.parametrize("status", [429, 503])
async def test_k7_a_wait_that_is_asked_for_when_buying_holds_every_replica_and_is_a_doubt(status: int) -> None:
    store = Store(says(status, PROBLEM, retry_after="86400"))
    reply = await store.client.place_order(INTENT, SendWindow(SystemClock(), timedelta(seconds=5)))
    assert isinstance(reply, Rejected)
    assert classify(reply, INTENT) is Outcome.IN_DOUBT
    assert store.schedule.held == [LONGEST_HOLD]


@pytest.mark.parametrize("page", [b"<html>moved</html>", {"message": "no Route matched"}, {"status": 404}, []])
async def test_k1_k8_a_404_that_is_not_in_the_suppliers_words_says_nothing(page: object) -> None:
    store = Store(says(404, page))
    with pytest.raises(SupplierUnavailable):
        await store.client.read_product("p1")
    with pytest.raises(SupplierUnavailable):
        await store.client.read_order("PHS1")


@pytest.mark.parametrize("kind", ["Http", "ProductUnavailable", "OrderNotFound"])
async def test_k8_a_404_in_the_suppliers_words_is_none(kind: str) -> None:
    store = Store(says(404, PROBLEM | {"kind": kind}))
    assert await store.client.read_product("p1") is None
    assert await store.client.read_order("PHS1") is None


def orders(count: int) -> list[dict[str, object]]:
    return [{"orderId": f"PHS{number}", "status": "completed", "products": []} for number in range(count)]


async def searched(store: Store, wanted: OrderFilter) -> list[str]:
    return [order.supplier_order_id async for page in store.client.search_orders(wanted) for order in page]


def in_pages(
    all_orders: Sequence[object], size: int, *, counted: int | None = None
) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        first = (int(request.url.params["page"]) - 1) * size
        count = len(all_orders) if counted is None else counted
        return says(200, {"results": all_orders[first : first + size], "item_count": count})(request)

    return answer


@pytest.mark.parametrize(("count", "size", "pages"), [(0, 100, 1), (120, 100, 2), (120, 60, 2), (200, 100, 3)])
async def test_k9_a_search_ends_when_all_was_shown_and_not_with_a_short_page(count: int, size: int, pages: int) -> None:
    store = Store(in_pages(orders(count), size))
    assert len(await searched(store, OrderFilter())) == count
    assert len(store.asked) == pages


async def test_k9_a_search_that_counts_what_it_never_shows_ends_and_says_that_it_is_not_whole() -> None:
    store = Store(in_pages(orders(3), 100, counted=5))
    pages = store.client.search_orders(OrderFilter())
    assert [order.supplier_order_id for order in [*await anext(pages), *await anext(pages)]] == ["PHS0", "PHS1", "PHS2"]
    with pytest.raises(SupplierUnavailable, match="counts more"):
        await anext(pages)
    assert len(store.asked) == 2
    # Orders leave a state while they are listed: fewer than were counted is no fault then.
    store = Store(in_pages([], 100, counted=5))
    assert await searched(store, OrderFilter(state=SupplierOrderState.PROCESSING)) == []


async def test_an_order_of_the_last_second_is_searched_for_although_times_are_sent_without_fractions() -> None:
    moment = datetime(2026, 1, 2, 12, 0, 0, 900_000, tzinfo=UTC)
    before, after = orders(2)
    told = [before | {"createdAt": "2026-01-02T12:00:00"}, after | {"createdAt": "2026-01-02T12:00:01"}]
    store = Store(in_pages(told, 100))
    assert await searched(store, OrderFilter(start_time=moment - MINUTE, end_time=moment)) == ["PHS0"]
    query = store.asked[0].url.params
    assert query["createdAtFrom"] == "2026-01-02T11:59:00+00:00"
    assert query["createdAtTo"] == "2026-01-02T12:00:01+00:00"


async def test_the_end_of_all_time_is_no_time_too_late() -> None:
    store = Store(in_pages(orders(1), 100))
    assert await searched(store, OrderFilter(end_time=datetime.max.replace(tzinfo=UTC))) == ["PHS0"]


def test_while_a_supplier_fails_all_the_time_one_read_asks_and_ever_more_rarely() -> None:
    async def keep_asking() -> tuple[int, int]:
        store = Store(says(503, PROBLEM), SimulatedClock())

        async def ask_for(seconds: float) -> int:
            before, end = len(store.asked), SimulatedClock().elapsed() + seconds
            while SimulatedClock().elapsed() < end:
                with pytest.raises(SupplierUnavailable):
                    await store.client.read_balance()
                order = await store.client.return_keys("PHS1") if store.breaker.is_open else None
                assert order is None or order == NotSent("SupplierUnavailable")
                await asyncio.sleep(0.1)
            return len(store.asked) - before

        for _ in range(WINDOW_CALLS):
            with pytest.raises(SupplierUnavailable):
                await store.client.read_balance()
        assert store.breaker.is_open
        return await ask_for(30 * FIRST_PAUSE_SECONDS), await ask_for(300)

    at_first, later = simulate(keep_asking())
    assert 3 <= at_first <= 5
    assert 9 <= later <= 12
