"""What reconciliation compares: the books of the other services, and the reports kept in our own."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from fulfillment.domain.reconciliation import Kind, Range, Statement

R = TypeVar("R", bound=Message)

LEASE = timedelta(minutes=3)
"""How long a run may be silent: each of its writes lengthens it, and in between lies one page of a book at most."""


class ReportState(StrEnum):
    """How far a report is."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class TheirPurchase:
    """A purchase as kinguin-gateway has it. Money is in EUR cents; states are the contract's words without prefix."""

    external_id: str
    order_id: str
    supplier_order_id: str
    state: str
    supplier_state: str
    quantity: int
    charged: int | None
    return_state: str
    create_time: datetime
    surplus: Mapping[str, str] = field(default_factory=dict)
    """Supplier orders bought too much, with how far the return of each is."""


@dataclass(frozen=True, slots=True)
class TheirOrder:
    """An order as the supplier tells it. `create_time` is None where it does not say."""

    supplier_order_id: str
    external_id: str
    state: str
    charged: int | None
    refunded: int
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class TheirKey:
    """A key as vault has it. `seal_time` is None until it is sealed."""

    key_id: str
    order_id: str
    state: str
    seal_time: datetime | None
    open_time: datetime | None


@dataclass(frozen=True, slots=True)
class TheirTopUp:
    """Money that was added to the account, in EUR cents."""

    top_up_id: str
    minor_units: int
    top_up_time: datetime


@dataclass(frozen=True, slots=True)
class TheirBalance:
    """What is left on the account, in EUR cents, and when it was read."""

    minor_units: int
    read_time: datetime


class Ledgers(Protocol):
    """The books of kinguin-gateway, the supplier and vault. Raises KeyferryError where one is not read to its end."""

    def purchases(self, span: Range) -> AsyncIterator[Sequence[TheirPurchase]]:
        """Give purchases first asked for in a range, by pages."""
        ...

    def supplier_orders(self, span: Range) -> AsyncIterator[Sequence[TheirOrder]]:
        """Give the supplier's own orders placed in a range, in batches."""
        ...

    def keys(self, span: Range) -> AsyncIterator[Sequence[TheirKey]]:
        """Give keys first asked to be sealed in a range, by pages."""
        ...

    def top_ups(self, span: Range) -> AsyncIterator[Sequence[TheirTopUp]]:
        """Give top-ups of a range, by pages."""
        ...

    async def balance(self) -> TheirBalance | None:
        """Return the balance as the supplier tells it now; None where it cannot be read."""
        ...

    async def purchase(self, external_id: str, order_id: str) -> TheirPurchase | None:
        """Look one purchase up; None where kinguin-gateway never heard of it."""
        ...

    async def orders_like(self, external_id: str, supplier_order_id: str) -> Sequence[TheirOrder]:
        """Look the supplier's orders up that carry this reference, or this number."""
        ...

    async def key(self, key_id: str) -> TheirKey | None:
        """Look one key up; None where vault has none."""
        ...

    async def give_back(self, external_id: str, supplier_order_id: str) -> bool:
        """Have an order that was bought too much returned; False where that was refused. Repeating it is safe."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """One replica's attempt at a report. Another run of the same report ends it: its writes are LeaseLost then."""

    report_id: str
    run_id: int
    span: Range
    scheduled: bool
    tries: int


class LeaseLost(Exception):
    """Another replica has taken the report over, or what was staged is gone: this run must end."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that looks like a difference, and is looked at again."""

    kind: Kind
    subject: str
    order_id: str
    external_id: str
    supplier_order_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What one more look at the other side found; what was looked for and is not in it is not there."""

    purchases: Mapping[str, TheirPurchase | None] = field(default_factory=dict)
    keys: Mapping[str, TheirKey | None] = field(default_factory=dict)
    orders: Sequence[TheirOrder] = ()
    gone_orders: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, as it is kept. `position` tells its place in the report.

    `kind` is a text where another version of this service found it, one that knows more kinds.
    """

    position: int
    kind: Kind | str
    order_id: str
    external_id: str
    supplier_order_id: str
    key_id: str
    payment_id: str
    expected: str
    found: str
    mended: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A report, as it is kept."""

    report_id: str
    span: Range
    state: ReportState
    create_time: datetime
    finish_time: datetime | None
    counts: Mapping[str, int]
    differences: Mapping[str, int]
    mended_count: int
    balance: Statement | None
    failure: str
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Books:
    """What the account must hold by our books, since when they are kept, and up to when they are closed."""

    minor_units: int
    open_time: datetime
    close_time: datetime


class Stage(Protocol):
    """Where one run puts what it was told and compares it. Each method is one short transaction, or several.

    Every one raises LeaseLost once another run has begun, and ServiceUnavailable when the database does not answer.
    """

    async def put_purchases(self, run: Run, page: Sequence[TheirPurchase]) -> None:
        """Keep purchases for this run; what is there already is replaced."""
        ...

    async def put_orders(self, run: Run, page: Sequence[TheirOrder], *, since: datetime) -> None:
        """Keep supplier orders for this run; one without a time of its own is taken to be of `since`."""
        ...

    async def put_keys(self, run: Run, page: Sequence[TheirKey], *, since: datetime) -> None:
        """Keep keys for this run; one without a time of its own is taken to be of `since`."""
        ...

    async def compare(self, run: Run, *, until: datetime) -> None:
        """Compare everything that happened in the run's range and before `until`; what differs is a candidate."""
        ...

    async def candidates(self, run: Run, *, after: tuple[str, str] | None, limit: int) -> Sequence[Candidate]:
        """Return candidates that somebody must be asked about, in the order of kind and subject."""
        ...

    async def look_again(self, run: Run, looked: Looked) -> None:
        """Replace what was told before by what was found now."""
        ...

    async def confirm(self, run: Run, *, until: datetime) -> None:
        """Compare the candidates once more; what still differs is a difference."""
        ...

    async def surplus(self, run: Run, *, since: datetime, after: int, limit: int) -> Sequence[Difference]:
        """Return orders bought too much whose return was not asked for and that are young enough for one.

        What our own purchase holds for its order is never among them, whatever kinguin-gateway says it keeps.
        """
        ...

    async def mended(self, run: Run, position: int) -> None:
        """Note that a difference was mended."""
        ...

    async def clear(self) -> None:
        """Delete what runs have staged that ended, in whatever way."""
        ...


class AccountBooks(Protocol):
    """The account at the supplier, as our books have it."""

    async def books(self) -> Books | None:
        """Return the books; None before the first report that could read the balance."""
        ...

    async def watch(self, run: Run, *, now: datetime) -> None:
        """Begin to watch supplier orders whose keys were given back or did not come since the books were closed."""
        ...

    async def watched(self, *, after: str, limit: int) -> Sequence[str]:
        """Return supplier orders, by number, of which money may still come back."""
        ...

    async def close(self, run: Run, told: TheirBalance, top_ups: Sequence[TheirTopUp]) -> Statement:
        """Explain the balance and write it down, with all that explains it, in one transaction.

        Top-ups and supplier orders that the books have already count once.
        """
        ...


class Reports(Stage, AccountBooks, Protocol):
    """Reports and their runs."""

    def transaction(self) -> AbstractAsyncContextManager["ReportTransaction"]:
        """Run a block in one transaction."""
        ...

    async def claim(self, *, now: datetime, lease: timedelta) -> Run | None:
        """Lease the report that is due, if no other is being worked on; with it begins a new run of it."""
        ...

    async def plan(self, *, now: datetime, every: timedelta, overlap: timedelta, grace: timedelta) -> bool:
        """Ask for the next report of the schedule if it is due."""
        ...

    async def count(self, run: Run) -> Mapping[str, int]:
        """Count what was compared, by its name in the contract."""
        ...

    async def finish(self, run: Run, *, counts: Mapping[str, int], balance: Statement | None, now: datetime) -> Report:
        """Finish a report and tell audit."""
        ...

    async def put_back(self, run: Run, failure: str, *, run_at: datetime | None, now: datetime) -> None:
        """Let a report be tried again at `run_at`; None gives it up."""
        ...

    async def get(self, report_id: str) -> Report | None:
        """Return one report."""
        ...

    async def page(self, *, size: int, after: tuple[datetime, str] | None) -> Sequence[Report]:
        """Return reports, newest first."""
        ...

    async def differences(self, run_id: int, *, kind: Kind | None, after: int, limit: int) -> Sequence[Difference]:
        """Return differences in the order in which they were found."""
        ...

    async def newest(self) -> Report | None:
        """Return the report that was finished last."""
        ...


class ReportTransaction(Protocol):
    """One transaction in which a report is asked for."""

    async def ask(self, span: Range, *, report_id: str, now: datetime) -> Report:
        """Ask for a report; the one of the same range that runs already is the same report."""
        ...

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before. Raises RequestIdReused."""
        ...

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        ...
