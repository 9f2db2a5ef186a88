"""Every answer that placing an order may get, from the supplier's bytes to the customer's sentence and the errors page.

The real code of kinguin-gateway, fulfillment and the edge is put together here; only the ways between them are not.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
import yaml
from chassis.errors import KeyferryError
from fulfillment.adapters.kinguin_grpc import not_placed
from fulfillment.convert import fulfillment_to_proto
from fulfillment.domain.policy import Policy
from fulfillment.ports.supplier import PlaceAnswer, Placed, Refused
from gateway.convert import order_from_proto
from gateway.domain.order import Order
from gateway.domain.progress import tell
from kinguin_gateway.adapters.kinguin_http import KinguinHttp
from kinguin_gateway.buying import Buyer
from kinguin_gateway.checking import Checker
from kinguin_gateway.domain.guard import OUTCOMES, AnswerKind, Bounds, Outcome, Reply, answer_kind
from kinguin_gateway.domain.looking import Pace
from kinguin_gateway.domain.purchase import Intent, Product, SupplierOrderState
from kinguin_gateway.domain.switching import PauseCause
from kinguin_gateway.ports.supplier import SendWindow
from kinguin_gateway.settling import Settler
from kinguin_gateway.withdrawing import Withdrawer

from tests.unit.fulfillment.office import Office
from tests.unit.kinguin_gateway.fakes import INTENT, REQUEST_ID, FakePurchases, FakeSupplier, Mood
from tests.unit.simulated import SimulatedClock, simulate

if TYPE_CHECKING:
    from kinguin_gateway.pacing import Turnstile

ROOT = Path(__file__).parents[3]
REFUSED = "`NEEDS_ATTENTION`, `PURCHASE_REFUSED`"
PARKED = "`PURCHASING`, `BUYING_PAUSED`"
IN_DOUBT = "`PURCHASING`"
BOUGHT = "`AWAITING_KEYS`"
WINDOW = timedelta(seconds=20)
K = AnswerKind


@dataclass(frozen=True)
class Row:
    """One row of the table on the page."""

    kind: str
    meaning: str
    order: str
    customer: str
    operator: str


def rows_of_the_page() -> dict[str, Row]:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    section = page.partition("### The supplier's words")[2].partition("\n## ")[0]
    lines = [line.strip("| ") for line in section.splitlines() if line.startswith("|")]
    rows = [Row(*re.split(r"\s*\|\s*", line)) for line in lines[2:]]
    assert len({row.kind for row in rows}) == len(rows), "a kind has two rows"
    return {row.kind: row for row in rows}


ROWS = rows_of_the_page()


@dataclass(frozen=True)
class Answer:
    """What comes over the wire: a response, or an error before or after the order was written."""

    kind: str
    meaning: AnswerKind
    order: str
    status: int = 0
    body: Any = b""
    headers: tuple[tuple[str, str], ...] = ()
    error: type[httpx.TransportError] | None = None
    written: bool = True


NONE: Mapping[str, str] = {}


def problem(kind: str, meaning: AnswerKind, order: str, *, status: int = 422, more: Mapping[str, str] = NONE) -> Answer:
    body = {"kind": kind.split("`")[1], "status": status, "title": "No", "detail": "It is not so.", "trace": "t1"}
    return Answer(kind, meaning, order, status, {**body, **more})


ORDER = {
    "orderId": "PHS00001",
    "orderExternalId": INTENT.external_id,
    "status": "processing",
    "totalPrice": 19.98,
    "paymentPrice": 19.98,
    "products": [{"productId": INTENT.product_id, "qty": INTENT.quantity, "name": "Lantern Hollow", "price": 9.99}],
}
ANOTHER_ORDER = {**ORDER, "products": [{"productId": "another", "qty": 1, "name": "Another", "price": 9.99}]}
USED = {"detail": "The value is already used.", "propertyPath": "orderExternalId"}

# fmt: off
ANSWERS = [
    problem("`ConstraintViolation`",               K.CONSTRAINT_VIOLATION, REFUSED, status=400),
    problem("`ConstraintViolation`, already used", K.REFERENCE_USED,       IN_DOUBT, more=USED),
    problem("`Authorization`",                     K.AUTHORIZATION,        PARKED, status=401),
    problem("`InsufficientBalance`",               K.INSUFFICIENT_BALANCE, PARKED),
    problem("`Preorder`",                          K.PREORDER,             REFUSED),
    problem("`ProductUnavailable`",                K.PRODUCT_UNAVAILABLE,  REFUSED),
    problem("`Error`",                             K.ERROR,                IN_DOUBT),
    problem("`Http`",                              K.HTTP,                 IN_DOUBT),
    problem("`HttpClient`",                        K.HTTP_CLIENT,          IN_DOUBT),
    problem("`OrderFailed`",                       K.ORDER_FAILED,         IN_DOUBT),
    problem("`OrderNotFound`",                     K.ORDER_NOT_FOUND,      IN_DOUBT, status=404),
    problem("`OrderNotSupported`",                 K.ORDER_NOT_SUPPORTED,  IN_DOUBT),
    problem("`ResourceLock`",                      K.RESOURCE_LOCK,        IN_DOUBT, status=423),
    problem("`NoKeysToReturn`",                    K.NO_KEYS_TO_RETURN,    IN_DOUBT),
    Answer("another kind, or none",                K.OTHER,                IN_DOUBT, 409, {"title": "Conflict"}),
    Answer("an order that is ours",                K.ORDER,                BOUGHT,   201, ORDER),
    Answer("an order that is not what we asked for", K.STRANGE_ORDER,      IN_DOUBT, 201, ANOTHER_ORDER),
    Answer("no answer in time",                    K.NO_ANSWER,            IN_DOUBT, error=httpx.ReadTimeout),
    Answer("a connection that breaks",             K.NO_ANSWER,            IN_DOUBT, error=httpx.ReadError),
    Answer("not sent",                             K.NOT_SENT,             IN_DOUBT, error=httpx.ConnectError,
           written=False),
    Answer("429",                                  K.THROTTLED,            IN_DOUBT, 429, {"kind": "Error"},
           headers=(("retry-after", "2"),)),
    Answer("5xx",                                  K.SERVER_FAULT,         IN_DOUBT, 503, {"kind": "Preorder"}),
    Answer("an unreadable answer",                 K.UNREADABLE,           IN_DOUBT, 201, b"<html>"),
    Answer("an empty answer",                      K.UNREADABLE,           IN_DOUBT, 201),
]
# fmt: on
PRODUCT = Product(
    INTENT.product_id, "Lantern Hollow", 999, 50, preorder=False, excluded_countries=["DE"], activation_details=""
)


class Wire(httpx.AsyncBaseTransport):
    """Gives one answer to everything."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._answer.written:
            await request.aread()
        if self._answer.error is not None:
            raise self._answer.error("no answer")
        body = self._answer.body if isinstance(self._answer.body, bytes) else json.dumps(self._answer.body).encode()
        return httpx.Response(self._answer.status, headers=self._answer.headers, stream=httpx.ByteStream(body))


@dataclass
class OpenGate:
    """A turnstile that stops nobody, and notes for how long it was asked to."""

    held: list[timedelta] = field(default_factory=list)

    async def hold(self, wait: timedelta) -> None:
        self.held.append(wait)

    def note(self, *, answered: bool) -> None:
        """Open or not, nobody asks."""


async def reply_to(answer: Answer, gate: OpenGate | None = None) -> Reply:
    """Return what kinguin-gateway reads from the wire."""
    clock = SimulatedClock()
    async with httpx.AsyncClient(transport=Wire(answer), base_url="https://supplier.example/esa/api/") as client:
        supplier = KinguinHttp(client, cast("Turnstile", gate or OpenGate()), call_limit=WINDOW)
        return await supplier.place_order(INTENT, SendWindow(clock, WINDOW))


@dataclass(frozen=True)
class Case:
    """What meets a purchase on its way: the product as it is read, buying that is paused, a withdrawal, the reply."""

    product: Product | None = PRODUCT
    intent: Intent = INTENT
    country_code: str = "FR"
    cause: PauseCause = PauseCause.NONE
    reply: Reply | None = None
    withdrawn: bool = False


async def place(case: Case) -> PlaceAnswer:
    """Return what fulfillment makes of kinguin-gateway's answer."""
    purchases, supplier = FakePurchases(), FakeSupplier()
    purchases.cause = case.cause
    supplier.products = {} if case.product is None else {INTENT.product_id: case.product}
    supplier.next_mood = lambda: Mood(take=False, reply=case.reply)
    bounds = Bounds(commit=timedelta(seconds=120), search_lag=timedelta(seconds=60))
    pace = Pace(first=timedelta(seconds=2), longest=timedelta(seconds=60))
    settler = Settler(purchases, supplier, bounds=bounds, pace=pace, chance=lambda: 0.5)
    if case.withdrawn:
        await Withdrawer(purchases, settler, window=WINDOW).withdraw(case.intent, REQUEST_ID)
    checker = Checker(supplier, supplier.clock)
    buyer = Buyer(purchases, supplier, settler, checker, clock=supplier.clock, window=WINDOW)
    try:
        placed = await buyer.place(case.intent, REQUEST_ID, case.country_code)
    except KeyferryError as error:
        assert len(supplier.sent_cents) == (case.reply is not None)
        return not_placed(error)
    assert placed.supplier_order_state is SupplierOrderState.PROCESSING
    return Placed(placed.supplier_order_id, placed.product_name, placed.charged_cents)


# fmt: off
NOT_ASKED = {
    "`price_above_limit`": Case(intent=replace(INTENT, max_unit_cents=998)),
    "`out_of_stock`":      Case(product=replace(PRODUCT, available=1)),
    "`country_excluded`":  Case(country_code="DE"),
    "`not_wholesale`":     Case(intent=replace(INTENT, quantity=10)),
    "`preorder_rules`":    Case(product=replace(PRODUCT, preorder=True)),
    "`product_unknown`":   Case(product=None),
    "`withdrawn`":         Case(withdrawn=True),
    "buying is paused":    Case(cause=PauseCause.OPERATOR),
}
# fmt: on


async def order_after(answer: PlaceAnswer) -> Order:
    """Return the order as the edge has it, when its purchase was answered so."""
    office = Office(Policy(stock_patience=timedelta(0), most_attempts=1))
    office.supplier.placing = [answer]
    await office.buy(1)
    await office.work()
    return order_from_proto(fulfillment_to_proto(await office.found(), for_customer=True))


def check_row(row: Row, order: Order, expected: str) -> None:
    told = ", ".join(f"`{word}`" for word in (order.state, order.reason) if word)
    assert told == expected == row.order
    assert row.customer == f'"{tell(order).sentence}"'
    assert row.meaning
    # The operator is asked for something exactly where the order does not go on by itself.
    asks_nothing = row.operator.startswith("nothing")
    assert asks_nothing == (expected in {IN_DOUBT, BOUGHT} and row.kind != "an order that is not what we asked for")


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.kind)
def test_k64_what_the_supplier_answers_comes_to_what_the_page_says(answer: Answer) -> None:
    async def follow() -> Order:
        reply = await reply_to(answer)
        assert answer_kind(reply, INTENT) is answer.meaning
        return await order_after(await place(Case(reply=reply)))

    check_row(ROWS[answer.kind], simulate(follow()), answer.order)


@pytest.mark.parametrize("kind", NOT_ASKED)
def test_what_we_do_not_even_ask_comes_to_what_the_page_says(kind: str) -> None:
    async def follow() -> tuple[PlaceAnswer, Order]:
        answer = await place(NOT_ASKED[kind])
        return answer, await order_after(answer)

    answer, order = simulate(follow())
    if isinstance(answer, Refused):
        assert f"`{answer.kind}`" == kind
    check_row(ROWS[kind], order, REFUSED if isinstance(answer, Refused) else PARKED)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("answer", [each for each in ANSWERS if each.kind.startswith("`")], ids=lambda it: it.kind)
def test_k64_a_status_that_speaks_of_the_way_makes_every_word_a_doubt(answer: Answer, status: int) -> None:
    reply = simulate(reply_to(replace(answer, status=status)))
    assert OUTCOMES[answer_kind(reply, INTENT)] is Outcome.IN_DOUBT


def test_who_asks_us_to_wait_is_left_alone_for_so_long() -> None:
    gate = OpenGate()
    simulate(reply_to(next(answer for answer in ANSWERS if answer.kind == "429"), gate))
    assert gate.held == [timedelta(seconds=2)]


def test_the_page_has_a_row_for_every_answer_and_no_other() -> None:
    assert sorted(ROWS) == sorted([*(answer.kind for answer in ANSWERS), *NOT_ASKED, "`never_taken`"])


def test_what_is_never_taken_comes_to_what_the_page_says() -> None:
    check_row(ROWS["`never_taken`"], simulate(order_after(Refused("never_taken"))), REFUSED)


def test_k63_every_kind_of_the_contract_and_every_answer_that_the_guard_knows_is_tried() -> None:
    contract = yaml.safe_load((ROOT / "sandbox" / "sandbox" / "kinguin" / "openapi.yaml").read_text(encoding="utf-8"))
    kinds = contract["components"]["schemas"]["Problem"]["properties"]["kind"]["enum"]
    assert len(kinds) == 13
    assert {f"`{kind}`" for kind in kinds} <= ROWS.keys()
    assert {answer.meaning for answer in ANSWERS} == set(AnswerKind) == set(OUTCOMES)
