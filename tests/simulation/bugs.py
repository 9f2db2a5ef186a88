"""Bugs, each planted in one place of the real code or of what carries it; the promises must notice every one.

Each is another mechanism that holds the promises: take it away and some history breaks.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from fulfillment import arriving, buying, collecting, moving, operating, taking_back
from fulfillment.domain import machine
from fulfillment.domain.machine import Effect, Signal, Transition
from fulfillment.domain.model import ExternalId, State
from fulfillment.ports.supplier import InDoubt, Refused
from kinguin_gateway import returning
from kinguin_gateway.domain import guard
from kinguin_gateway.domain.guard import AnswerKind, Lookup, Outcome
from kinguin_gateway.errors import PurchaseUnknown

from tests.simulation import gateway_rows, rows, supplier
from tests.simulation.shapes import MailRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fulfillment.domain.model import Fulfillment, Key, KeyId, OrderId, Purchase
    from fulfillment.ports.supplier import Collected, PlaceAnswer
    from fulfillment.ports.vault import FoundKey
    from kinguin_gateway.domain.purchase import Purchase as Bought


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug by its name, and what is replaced by what: the owner, the name in it, and the broken thing."""

    name: str
    changes: Sequence[tuple[Any, str, Any]]
    # A seed shortly before the first that notices it: a short search begins there.
    near: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        patches = [patch.object(owner, name, broken) for owner, name, broken in self.changes]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in reversed(patches):
                each.stop()


def _table(*changes: tuple[State, Signal, Transition]) -> tuple[Any, str, Any]:
    broken = {**machine.TRANSITIONS, **{(state, signal): to for state, signal, to in changes}}
    return machine, "TRANSITIONS", broken


def _but(before: State, signal: Signal, **changes: Any) -> tuple[State, Signal, Transition]:
    return before, signal, replace(machine.TRANSITIONS[before, signal], **changes)


# The transactions.

_commit = rows.Transaction.commit


async def _inbox_alone(self: rows.Transaction, event_id: str) -> bool:
    """Write the inbox before its effect, and not with it: who dies in between has lost the event."""
    inbox = self._tables.committed["inbox"]
    if event_id in inbox:
        return False
    inbox[event_id] = True
    return True


def _publish_after_commit(self: rows.Transaction) -> None:
    """Publish what was told once the commit is done, and not with it: who dies in between has told nobody."""
    told, self._fresh = self._fresh, []
    _commit(self)
    self.process.point()
    for identity, event in told:
        self._database.published(identity, event)


class _Unlocked:
    """A transaction that reads an order without its lock."""

    def __init__(self, transaction: rows.Transaction) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def load(self, order_id: OrderId, *, lock: bool = False) -> Fulfillment | None:  # noqa: ARG002 # the bug
        return await self._transaction.load(order_id)


_opened = collecting.Openings.key_opened


async def _opened_unlocked(self: collecting.Openings, transaction: Any, key_id: KeyId) -> None:
    await _opened(self, _Unlocked(transaction), key_id)


# Buying.


async def _doubt_is_refusal(self: buying.Buyer, turn: Any, answer: PlaceAnswer) -> None:
    wrong = Refused("ProductUnavailable") if isinstance(answer, InDoubt) else answer
    await _note_answer(self, turn, wrong)


_note_answer = buying.Buyer._placed
_proves_absence = guard.proves_absence
_record_absent = gateway_rows.GatewayRows.record_absent


class _FailedLookup(Lookup):
    """A search that failed, to be told from one that found nothing."""


def _failed_search(_: supplier.SupplierLine, start_time: datetime) -> Lookup:
    return _FailedLookup(start_time, [], complete=True)


def _failure_proves_absence(lookup: Lookup, send_deadline: datetime, bounds: guard.Bounds) -> bool:
    return isinstance(lookup, _FailedLookup) or _proves_absence(lookup, send_deadline, bounds)


async def _record_any_absence(self: gateway_rows.GatewayRows, bought: Bought, *, sent_before: datetime) -> Bought:  # noqa: ARG001 # the bug
    return await _record_absent(self, bought, sent_before=datetime.max.replace(tzinfo=UTC))


_place = buying.Buyer.place


async def _place_anew(self: buying.Buyer, claimed: Any) -> Any:
    """Ask for a purchase under a reference that is new each time."""
    purchase = claimed.purchase
    anew = replace(purchase, external_id=ExternalId(f"{purchase.external_id}-{purchase.claim}"))
    asked = self._supplier

    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(asked, name)

        async def place(self, wanted: Any) -> Any:
            return await asked.place(replace(wanted, purchase=anew))

    other = buying.Buyer(self._bench, Other(), self._products)
    return await _place(other, claimed)


# Giving up.


async def _nothing_revoked(_: taking_back.Taker, __: Purchase, keys: Sequence[Key]) -> Sequence[KeyId]:
    """Say that keys are revoked without asking vault."""
    return [key.key_id for key in keys if key.open_time is None]


class _NewNumbers:
    """Derives nothing: each number is another one."""

    UUID = uuid.UUID
    _numbers = count(1)

    @classmethod
    def uuid5(cls, *_: object) -> uuid.UUID:
        return uuid.UUID(int=next(cls._numbers))


async def _add_some_keys(self: rows.Transaction, order_id: Any, keys: Sequence[Key]) -> Sequence[Key]:
    return await _add_keys(self, order_id, keys[:1])


_add_keys = rows.Transaction.add_keys


def _open_what_comes(arrived: Sequence[Key], _turn: Any) -> Sequence[Key]:
    return arrived


# Keys that nobody was told of.

_store = collecting._store


async def _store_unless_unreadable(turn: Any, answer: Collected) -> Sequence[Key]:
    """Take an answer that tells of something unreadable for an answer about nothing else."""
    return () if answer.unreadable else await _store(turn, answer)


def _nothing_astray(*_: object) -> Sequence[FoundKey]:
    """Believe our own rows to be all there is."""
    return ()


async def _know_nothing_else(_: returning.Returner, purchase: Bought, supplier_order_id: str) -> Any:  # noqa: ARG001 # the bug
    """Give back only what was noticed before."""
    raise PurchaseUnknown("the purchase has no such supplier order")


async def _want_a_mail_each(self: rows.Transaction, order_id: Any, *, now: datetime) -> None:
    self.put("mails", order_id, MailRow(run_at=now))
    self._has_news = True


async def _lease_for_ever(self: rows.Transaction, purchase: Purchase, *, until: datetime) -> Purchase:  # noqa: ARG001 # the bug
    """Keep what was claimed from everybody, whatever becomes of who claimed it."""
    return await _lease(self, purchase, until=datetime(2090, 1, 1, tzinfo=UTC))


_lease = rows.Transaction.lease


async def _seal_unsettled(self: operating.Operating, *_: object) -> None:
    """Deliver by hand without making sure that it is not bought as well."""


BUGS = [
    Bug("the inbox is written before its effect", [(rows.Transaction, "is_first", _inbox_alone)]),
    Bug("events are published after the commit", [(rows.Transaction, "commit", _publish_after_commit)]),
    Bug(
        "an opening is noted without its order's lock",
        [(collecting.Openings, "key_opened", _opened_unlocked)],
        near=670,
    ),
    Bug("a doubt is taken for a refusal", [(buying.Buyer, "_placed", _doubt_is_refusal)]),
    Bug(
        "a search that failed proves absence",
        [
            (supplier.SupplierLine, "failed_search", _failed_search),
            (guard, "proves_absence", _failure_proves_absence),
            (gateway_rows.GatewayRows, "record_absent", _record_any_absence),
        ],
        near=2450,
    ),
    Bug(
        "absence is believed before the supplier's bounds",
        [(guard.Bounds, "total", property(lambda bounds: bounds.commit / 8))],
        near=1750,
    ),
    Bug(
        "a 5xx is taken for a refusal",
        [(guard, "OUTCOMES", {**guard.OUTCOMES, AnswerKind.SERVER_FAULT: Outcome.REFUSED})],
        near=740,
    ),
    Bug("a purchase has a new reference each time", [(buying.Buyer, "place", _place_anew)]),
    Bug("keys go back that were never revoked", [(taking_back.Taker, "_revoke", _nothing_revoked)]),
    Bug(
        "keys are destroyed before their return is certain",
        [_table(_but(State.REVOKING, Signal.KEYS_REVOKED, state=State.SHREDDING))],
    ),
    Bug("the money is asked for under a new number", [(moving, "uuid", _NewNumbers)], near=550),
    Bug(
        "the money is asked for while it is in doubt",
        [_table(_but(State.WITHDRAWING, Signal.ORDER_IN_DOUBT, state=State.CANCELED, effect=Effect.MONEY_BACK))],
    ),
    Bug(
        "what is canceled is never withdrawn",
        [_table(_but(State.PURCHASING, Signal.GIVEN_UP_UNBOUGHT, state=State.CANCELED, effect=Effect.MONEY_BACK))],
    ),
    Bug("keys that come after giving up can be opened", [(arriving, "_wanted", _open_what_comes)], near=720),
    Bug("what is unreadable hides the keys that are not", [(collecting, "_store", _store_unless_unreadable)]),
    Bug("vault is not asked what it has before all is over", [(taking_back, "strays", _nothing_astray)]),
    Bug("what nobody noticed is never given back", [(returning.Returner, "_ask_surplus", _know_nothing_else)]),
    Bug("only the first key of each page is kept", [(rows.Transaction, "add_keys", _add_some_keys)]),
    Bug("a mail is wanted for every key", [(rows.Transaction, "want_mail", _want_a_mail_each)]),
    Bug("a lease outlives its dead holder", [(rows.Transaction, "lease", _lease_for_ever)]),
    Bug("a delivery by hand settles nothing", [(operating.Operating, "_settle", _seal_unsettled)], near=2280),
    Bug(
        "no money is asked for what never comes", [_table(_but(State.AWAITING_KEYS, Signal.NO_MORE_KEYS, effect=None))]
    ),
]
