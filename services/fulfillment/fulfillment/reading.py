"""Who may see an order, and what of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.clock import Clock
from chassis.errors import InvalidRequest
from chassis.paging import page_size, read_page_token, write_page_token
from chassis.validation import IDENTIFIER
from keyferry.type.v1 import actor_pb2

from fulfillment import facts
from fulfillment.domain.model import Fulfillment, OrderId, State
from fulfillment.errors import KeyNotFound, KeyRevoked, OrderNotFound
from fulfillment.metrics import ACCESS_DENIED
from fulfillment.ports.orders import Orders
from fulfillment.ports.vault import KeyWish

DEFAULT_PAGE = 20
LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some fulfillments, and where the next ones begin."""

    fulfillments: Sequence[Fulfillment]
    next_token: str


class Reading:
    """Reads orders for their owner, for staff, or for a service of the shop."""

    def __init__(self, orders: Orders, *, clock: Clock) -> None:
        self._orders = orders
        self._clock = clock

    async def get(self, order_id: OrderId, actor: actor_pb2.Actor | None, *, method: str) -> Fulfillment:
        """Return an order. Raises OrderNotFound for none at all and for somebody else's; the latter is recorded."""
        async with self._orders.transaction("read") as transaction:
            found = await transaction.load(order_id)
            foreign = found is not None and _is_foreign(found, actor)
            if found is not None and actor is not None and foreign:
                ACCESS_DENIED.labels(method).inc()
                now = self._clock.now()
                await facts.record(
                    transaction,
                    "order.access_denied",
                    order_id,
                    now=now,
                    # One entry per person, order and minute: a loop must not fill an eternal log.
                    identity=[actor.id, method, f"{now:%Y%m%d%H%M}"],
                    actor=actor_pb2.Actor(type=actor.type, id=actor.id),
                    details={"method": method},
                )
        if found is None or foreign:
            raise OrderNotFound("there is no such order")
        return found

    async def openable(self, wish: KeyWish, actor: actor_pb2.Actor, *, method: str) -> None:
        """Check that a key is there for this customer to open. Raises OrderNotFound, KeyNotFound and KeyRevoked."""
        found = await self.get(wish.order_id, actor, method=method)
        key = next((key for line in found.lines for key in line.keys if key.key_id == wish.key_id), None)
        # One that was held was never its owner's, whatever became of it.
        if key is None or key.held:
            raise KeyNotFound("the order has no such key")
        if not key.is_openable:
            raise KeyRevoked("the key was taken back and cannot be opened any more; the order says what became of it")

    async def page(
        self, actor: actor_pb2.Actor | None, *, customer_id: str, state: State | None, size: int, token: str
    ) -> Page:
        """Return a page. A customer sees their own only, whatever the filter says."""
        if actor is not None and actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER:
            customer_id = actor.id
        size = page_size(size, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        filters = (customer_id, state or "")
        place = read_page_token(filters, token, parts=2)
        after = None if place is None else _read_place(*place)
        found = await self._orders.page(customer_id=customer_id, state=state, size=size + 1, after=after)
        shown = found[:size]
        return Page(shown, _token_after(shown[-1], filters) if len(found) > size else "")


def _is_foreign(found: Fulfillment, actor: actor_pb2.Actor | None) -> bool:
    return (
        actor is not None
        and actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER
        and actor.id != found.order.customer.customer_id
    )


def _token_after(last: Fulfillment, filters: Sequence[str]) -> str:
    return write_page_token(filters, [last.create_time.isoformat(), last.order.order_id])


def _read_place(time: str, order_id: str) -> tuple[datetime, str]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        if IDENTIFIER.fullmatch(order_id):
            return datetime.fromisoformat(time).astimezone(UTC), order_id
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the page before")
