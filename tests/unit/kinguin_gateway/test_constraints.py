"""Rules of docs/kinguin.md on our side: what leaves us over HTTP, and what we make of the supplier's answers."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.secret import SecretBytes
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1.actor_pb2 import ACTOR_TYPE_ADMIN, Actor
from keyferry.type.v1.money_pb2 import Money
from kinguin_gateway.adapters.kinguin_http import KinguinHttp
from kinguin_gateway.adapters.kinguin_json import order_from_json, order_to_json, product_from_json
from kinguin_gateway.collecting import Collector
from kinguin_gateway.convert_account import top_up_from_proto
from kinguin_gateway.domain.guard import MOST_ATTEMPTS, Bounds, Lookup, Rejected, judge
from kinguin_gateway.domain.looking import LONGEST_RELEASE_GAP, Pace, gap, release_gap
from kinguin_gateway.domain.purchase import (
    OrderKey,
    Problem,
    Purchase,
    PurchaseState,
    SupplierKeyState,
    SupplierOrderState,
)
from kinguin_gateway.errors import PurchaseInDoubt, PurchaseRefused, SupplierUnavailable
from kinguin_gateway.ports.supplier import OrderFilter, SendWindow, SuppliedKey

from tests.unit.kinguin_gateway.fakes import (
    INTENT,
    REQUEST_ID,
    FakePurchases,
    FakeSupplier,
    FakeVault,
    Mood,
    Row,
    a_turnstile,
    an_order,
    deliver,
)
from tests.unit.kinguin_gateway.test_buying import World
from tests.unit.simulated import EPOCH, simulate

BASE = "https://gateway.kinguin.example/esa/api"
ORDER = {
    "orderId": "PHS1",
    "orderExternalId": INTENT.external_id,
    "status": "processing",
    "products": [{"productId": INTENT.product_id, "qty": 2, "name": "Game"}],
}
BOUNDS = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))


class Wire:
    """The supplier's end of the wire: what was asked, and the answers to give."""

    def __init__(self, *answers: Any, status: int = 200) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)
        self._status = status

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return httpx.Response(self._status, stream=httpx.ByteStream(json.dumps(body).encode()))

    def client(self) -> KinguinHttp:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.handle), base_url=BASE + "/")
        return KinguinHttp(http, a_turnstile(SystemClock()), call_limit=timedelta(seconds=5))

    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.asked]


async def every_call(wire: Wire) -> None:
    client = wire.client()

    async def pages(these: Any) -> None:
        async for _ in these:
            pass

    calls: Sequence[Callable[[], Any]] = (
        lambda: client.place_order(INTENT, SendWindow(SystemClock(), timedelta(seconds=5))),
        lambda: client.find_orders(INTENT.external_id, start_time=EPOCH),
        lambda: client.read_order("PHS1"),
        lambda: pages(client.key_pages("PHS1")),
        lambda: pages(client.search_orders(OrderFilter())),
        lambda: client.return_keys("PHS1"),
        lambda: client.changed_products(["p1"], since=EPOCH),
        lambda: client.read_product("p1"),
        client.read_balance,
    )
    for call in calls:
        try:
            await call()
        except SupplierUnavailable:
            continue


async def test_k1_k42_k48_every_call_has_the_path_and_version_of_the_contract() -> None:
    wire = Wire({})
    await every_call(wire)
    assert wire.paths() == [
        "POST /esa/api/v2/order",
        "GET /esa/api/v1/order",
        "GET /esa/api/v1/order/PHS1",
        "GET /esa/api/v2/order/PHS1/keys",
        "GET /esa/api/v1/order",
        "POST /esa/api/v2/order/PHS1/keys/return",
        "GET /esa/api/v1/products",
        "GET /esa/api/v2/products/p1",
        "GET /esa/api/v1/balance",
    ]


async def test_k9_k11_k16_lists_are_asked_for_in_full_pages_and_in_no_order_of_their_own() -> None:
    wire = Wire({"results": [], "item_count": 0})
    client = wire.client()
    await client.changed_products(["p1", "p2"], since=datetime(2026, 1, 2, tzinfo=UTC))
    (query,) = [dict(request.url.params) for request in wire.asked]
    assert query == {"productId": "p1,p2", "limit": "100", "updatedSince": "2026-01-02T00:00:00+00:00"}


def test_k4_a_supplier_that_never_takes_an_order_is_not_asked_for_ever() -> None:
    async def insist(world: World) -> None:
        for _ in range(500):
            try:
                await world.place()
            except PurchaseInDoubt as error:
                await asyncio.sleep((error.retry_after or timedelta(seconds=1)).total_seconds() + 1)

    world = World(take=False, reply=Rejected(422, Problem("OrderFailed", "No billing address.", "trace-4")))
    with pytest.raises(PurchaseRefused) as refused:
        simulate(insist(world))
    assert refused.value.metadata["kind"] == "never_taken"
    assert "No billing address." in refused.value.metadata["detail"]
    assert len(world.supplier.sent_cents) == MOST_ATTEMPTS
    assert world.state() is PurchaseState.REFUSED


def test_k5_money_that_the_api_never_shows_is_told_by_a_person_and_may_be_corrected() -> None:
    request = pb.RecordTopUpRequest(
        request_id=REQUEST_ID,
        actor=Actor(type=ACTOR_TYPE_ADMIN, id="carol"),
        amount=Money(currency_code="EUR", minor_units=-500),
        reference="typed twice",
    )
    request.top_up_time.FromDatetime(EPOCH)
    assert top_up_from_proto(request).top_up.amount_cents == -500


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05+01:00", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.025+00:00", datetime(2026, 1, 2, 3, 4, 5, 25_000, tzinfo=UTC)),
        ("soon", None),
    ],
)
def test_k12_every_form_of_a_time_is_read_and_no_other_breaks_an_answer(text: str, moment: datetime | None) -> None:
    order = order_from_json({**ORDER, "createdAt": text, "isPreorder": True, "preorderReleaseDate": text})
    assert (order.create_time, order.release_time) == (moment, moment)
    assert product_from_json({"productId": "p1", "name": "Game", "updatedAt": text}).update_time == moment


def test_k17_platforms_and_regions_are_passed_on_as_they_are_written() -> None:
    told = {
        "productId": "p1",
        "name": "Game",
        "platform": "Some New Store",
        "regionalLimitations": "MOON",
        "genres": [],
    }
    product = product_from_json(told)
    assert (product.platform, product.region) == ("Some New Store", "MOON")


@pytest.mark.parametrize("quantity", [1, 9, 10, 1000])
def test_k20_k21_k26_k29_k36_an_order_has_one_line_and_nothing_that_is_gone(quantity: int) -> None:
    body = json.loads(order_to_json(replace(INTENT, quantity=quantity, offer_id="offer-1", key_type="text")))
    assert body.keys() == {"orderExternalId", "products"}
    (line,) = body["products"]
    assert line.keys() == {"productId", "qty", "price", "keyType", "offerId"}
    assert line["qty"] == quantity


def test_k18_k34_what_is_not_wanted_is_not_sent() -> None:
    (line,) = json.loads(order_to_json(INTENT))["products"]
    assert line.keys() == {"productId", "qty", "price"}


@pytest.mark.parametrize("price", ["19.98", 19.98, "19.975"])
def test_k25_what_was_charged_is_the_payment_price_and_not_the_total(price: str | float) -> None:
    order = order_from_json({**ORDER, "paymentPrice": price, "totalPrice": Decimal("21.00")})
    assert (order.charged_cents, order.total_cents) == (1998, 2100)


def test_k37_a_preorder_is_asked_for_rarely_long_before_its_release_and_often_around_it() -> None:
    pace = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=300))
    release, now, looks, near = timedelta(days=90), timedelta(0), 0, 0
    while now < release + timedelta(hours=2):
        wait = release_gap(gap(pace, looks, 0.5), now=EPOCH + now, release_time=EPOCH + release)
        assert wait <= LONGEST_RELEASE_GAP
        now, looks = now + wait, looks + 1
        near += abs(now - release) < timedelta(hours=1)
    assert looks < 90 + 10 + 60
    assert near >= 20


@pytest.mark.parametrize(
    "told",
    [
        {"isPreorder": True, "preorderReleaseDate": "2031-03-14"},
        {"isPreorder": True, "products": [{"productId": "p1", "qty": 1, "releaseDate": "2031-03-14"}]},
        {"products": [{"productId": "p1", "qty": 1, "isPreorder": True, "releaseDate": "2031-03-14"}]},
    ],
)
def test_k39_a_preorder_is_told_in_three_places(told: dict[str, Any]) -> None:
    order = order_from_json({**ORDER, **told})
    assert (order.preorder, order.release_time) == (True, datetime(2031, 3, 14, tzinfo=UTC))


@pytest.mark.parametrize("word", ["processing", "completed", "canceled", "refunded", "on hold", "COMPLETED"])
def test_k40_a_state_of_an_order_that_we_do_not_know_promises_nothing(word: str) -> None:
    known = {state.value: state for state in SupplierOrderState}
    assert order_from_json({**ORDER, "status": word}).state is known.get(word.lower(), SupplierOrderState.PROCESSING)


def test_k41_the_six_states_of_a_key_are_told_apart_and_a_seventh_is_none() -> None:
    words = [*SupplierKeyState, "LOST"]
    line = {"productId": "p1", "qty": 7, "keys": [{"id": f"k{n}", "status": word} for n, word in enumerate(words)]}
    order = order_from_json({**ORDER, "products": [line]})
    assert [key.state for key in order.keys] == [*SupplierKeyState, None]
    assert (order.delivered_count, order.canceled_count) == (1, 1)


def test_k43_whatever_order_a_search_answers_in_the_same_one_is_kept() -> None:
    orders = [an_order(number=number, create_time=EPOCH + timedelta(seconds=number)) for number in (3, 1, 2)]
    for shown in (orders, orders[::-1]):
        verdict = judge(Lookup(EPOCH, shown, complete=True), INTENT, EPOCH, BOUNDS)
        assert getattr(verdict, "order", None) == orders[1]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.mark.parametrize(
    ("content_type", "serial", "sealed"),
    [
        ("text/plain", "AAAA-BBBB", b"AAAA-BBBB"),
        ("image/png", base64.b64encode(PNG).decode(), PNG),
        ("image/jpeg", "data:image/jpeg;base64," + base64.b64encode(PNG).decode(), PNG),
        ("image/gif", base64.encodebytes(PNG).decode(), PNG),
        ("application/pdf", "JVBERi0=", None),
        ("image/png", "no base64!", None),
    ],
)
async def test_k46_keys_are_text_or_one_of_three_pictures(content_type: str, serial: str, sealed: bytes | None) -> None:
    wire = Wire([{"id": "k1", "serial": serial, "type": content_type, "productId": INTENT.product_id}], [])
    ((key,),) = [page async for page in wire.client().key_pages("PHS1")]
    assert (key.value.expose() if key.value is not None else None) == sealed


class Collecting:
    """A purchase of so many keys whose supplier delivers as it is told."""

    def __init__(self, quantity: int) -> None:
        self.intent = replace(INTENT, quantity=quantity)
        self.purchases, self.supplier, self.vault = FakePurchases(lambda: EPOCH), FakeSupplier(), FakeVault()
        placed = Purchase(self.intent, PurchaseState.PLACED, 1, EPOCH, create_time=EPOCH, supplier_order_id="PHS00001")
        self.purchases.rows[INTENT.external_id] = Row(placed, REQUEST_ID)
        self.supplier.taken.append(an_order(self.intent))
        self.collector = Collector(self.purchases, self.supplier, self.vault)

    def deliver(self, *keys: SuppliedKey, state: SupplierOrderState = SupplierOrderState.PROCESSING) -> None:
        self.supplier.keys["PHS00001"] = list(keys)
        ours = sum(key.product_id == INTENT.product_id for key in keys)
        self.supplier.show(deliver(self.supplier.taken[0], ours, state))

    async def collect(self) -> tuple[int, bool]:
        collection = await self.collector.collect(
            INTENT.external_id, customer_id="alice", request_id=REQUEST_ID, digest=b"1"
        )
        return len(collection.keys), collection.more_keys_ready


def a_key(number: int, product_id: str = INTENT.product_id) -> SuppliedKey:
    secret = SecretBytes(b"KEY-%d" % number)
    return SuppliedKey(f"key-{number}", product_id, "text/plain", secret)


async def test_k45_what_was_delivered_is_sealed_while_the_rest_is_awaited() -> None:
    world = Collecting(3)
    world.deliver(a_key(1))
    assert await world.collect() == (1, False)
    world.deliver(*map(a_key, (1, 2, 3)), state=SupplierOrderState.COMPLETED)
    assert await world.collect() == (3, False)
    assert len(world.vault.calls) == 3


async def test_k47_a_key_of_another_product_is_never_sealed_wherever_it_stands() -> None:
    world = Collecting(2)
    world.deliver(a_key(9, "somebody-else's"), a_key(1), a_key(2), state=SupplierOrderState.COMPLETED)
    assert await world.collect() == (2, False)
    assert [call.rpartition(":")[2] for call in world.vault.calls] == ["key-1", "key-2"]


class Unreliable(FakeSupplier):
    """Shows pages that are short, long or overlap; paging until an empty one finds every key."""

    def __init__(self, size: int, overlap: int = 0) -> None:
        super().__init__()
        self.size, self.overlap = size, overlap

    def page_of(self, keys: Sequence[SuppliedKey], number: int) -> Sequence[SuppliedKey]:
        first = (number - 1) * self.size
        return keys[max(0, first - self.overlap) : first + self.size] if first < len(keys) else ()


@pytest.mark.parametrize(("size", "overlap"), [(100, 0), (30, 0), (250, 0), (100, 20), (40, 10)])
async def test_k32_k44_a_thousand_keys_are_found_however_the_pages_fall(size: int, overlap: int) -> None:
    world = Collecting(1000)
    supplier = Unreliable(size, overlap)
    supplier.taken, world.collector = world.supplier.taken, Collector(world.purchases, supplier, world.vault)
    world.supplier = supplier
    world.deliver(*map(a_key, range(1000)), state=SupplierOrderState.COMPLETED)
    calls = 0
    while (await world.collect())[1]:
        calls += 1
        assert calls <= 12
    assert len(set(world.vault.calls)) == len(world.vault.calls) == 1000


async def test_k41_keys_that_went_back_say_so() -> None:
    world = Collecting(2)
    world.deliver(a_key(1), state=SupplierOrderState.COMPLETED)
    await world.collect()
    gone = [OrderKey("key-1", SupplierKeyState.REFUNDED), OrderKey("key-2", SupplierKeyState.CANCELED)]
    world.supplier.keys["PHS00001"] = []
    world.supplier.show(an_order(world.intent, lines=[replace(an_order().lines[0], keys=gone)]))
    collection = await world.collector.collect(
        INTENT.external_id, customer_id="alice", request_id=REQUEST_ID, digest=b"1"
    )
    assert [key.state for key in collection.keys] == [SupplierKeyState.REFUNDED]
    assert collection.purchase.canceled_count == 1


async def test_k62_the_trace_for_the_suppliers_support_is_kept() -> None:
    failure = {"kind": "Error", "status": 500, "detail": "bad day", "trace": "abc123"}
    with pytest.raises(SupplierUnavailable) as raised:
        await Wire(failure, status=500).client().read_order("PHS1")
    assert raised.value.metadata["trace"] == "abc123"
    reply = (
        await Wire({**failure, "kind": "Preorder"}, status=422)
        .client()
        .place_order(INTENT, SendWindow(SystemClock(), timedelta(seconds=5)))
    )
    assert reply == Rejected(422, Problem("Preorder", "bad day", "abc123"))


@pytest.mark.parametrize(("told", "cents"), [(12.45, 1245), (12.449999, 1244), (0, 0), ("12.45", 1245)])
async def test_k65_the_balance_is_a_float_and_is_rounded_against_us(told: float | str, cents: int) -> None:
    assert await Wire({"balance": told}).client().read_balance() == cents


def test_k22_k64_a_mood_of_the_supplier_never_raises_what_is_sent() -> None:
    world = World(reply=Rejected(503, Problem("Error")))

    async def once() -> None:
        with pytest.raises(PurchaseInDoubt):
            await world.place()

    world.supplier.next_mood = lambda: Mood(take=False, reply=Rejected(503, Problem("Error")))
    simulate(once())
    assert world.supplier.sent_cents == [INTENT.max_unit_cents]
