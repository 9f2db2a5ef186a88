"""An order as server-sent events: the present state, then every change, and signs of life in between."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing

import structlog
from chassis.errors import KeyferryError, ServiceUnavailable
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway import problem
from gateway.domain.order import Customer, Order
from gateway.domain.progress import tell
from gateway.edge import Edge
from gateway.metrics import STREAMS_OPEN
from gateway.schema import order_model

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "text/event-stream"
# Proxies cut lines that are silent for 30 to 60 seconds.
KEEPALIVE_SECONDS = 15.0
RECONNECT_MILLISECONDS = 2000
# Fulfillment ends a stream now and then; an order that rests is not asked for again at once.
REWATCH_SECONDS = 2.0
# As long as an ordinary read of the order may take: a page that waits for nothing should poll instead.
FIRST_SECONDS = 5.0

#: An event as OpenAPI shows it; `retry` comes alone.
EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["order", "problem", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}

Orders = AsyncGenerator[Order, None]


class _EventStream(StreamingResponse):
    """Holds its place among the customer's streams and gives it back however it ends."""

    def __init__(self, events: AsyncIterator[str], held: ExitStack) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers={"x-accel-buffering": "no"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not in the events themselves: a reader who leaves before the first one never starts them.
        with self._held:
            await super().__call__(scope, receive, send)


async def begin_stream(edge: Edge, order_id: str, customer: Customer, request_id: str) -> StreamingResponse:
    """Return the streaming answer. What goes wrong before its first event is an ordinary error answer."""
    with ExitStack() as held:
        # Counted before anything is waited for, so that many at once are still many.
        held.enter_context(edge.streams.slot(customer.customer_id))
        held.enter_context(STREAMS_OPEN.track_inprogress())
        orders = edge.fulfillments.watch(order_id, customer)
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                first = await anext(orders)
        except (StopAsyncIteration, TimeoutError):
            raise ServiceUnavailable("the order could not be followed; try again") from None
        return _EventStream(_guarded(_events(edge, customer, first, orders), request_id), held.pop_all())


async def _guarded(events: AsyncIterator[str], request_id: str) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield event
    except KeyferryError as error:
        yield _event("problem", json.dumps(problem.document_of(error, request_id)))
    except Exception:
        logger.exception("event stream failed")


async def _events(edge: Edge, customer: Customer, first: Order, orders: Orders) -> AsyncIterator[str]:
    ends = edge.clock.elapsed() + edge.stream_seconds
    latest = first
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
    yield _order_event(first)
    while not tell(latest).final:
        async with aclosing(_until(edge, orders, ends)) as changes:
            async for order in changes:
                if order is None:
                    yield ": keepalive\n\n"
                elif order != latest:
                    latest = order
                    yield _order_event(order)
                    if tell(order).final:
                        break
            else:
                if edge.streams.stopping.is_set() or edge.clock.elapsed() >= ends:
                    return
                await edge.clock.sleep(REWATCH_SECONDS)
                orders = edge.fulfillments.watch(first.order_id, customer)
    await orders.aclose()
    yield _event("end", "{}")


async def _until(edge: Edge, orders: Orders, ends: float) -> AsyncGenerator[Order | None, None]:
    """Yield orders as they come, None when a sign of life is due; end with them, at `ends`, or on drain."""
    stopping: asyncio.Task[object] = asyncio.create_task(edge.streams.stopping.wait())
    pending: asyncio.Task[Order | None] | None = None
    try:
        while (left := ends - edge.clock.elapsed()) > 0:
            pending = pending or asyncio.create_task(_next(orders))
            await asyncio.wait(
                {pending, stopping}, timeout=min(left, KEEPALIVE_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
            if stopping.done():
                return
            if not pending.done():
                yield None
                continue
            order, pending = pending.result(), None
            if order is None:
                return
            yield order
    finally:
        waiting = [task for task in (stopping, pending) if task is not None]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await orders.aclose()


async def _next(orders: Orders) -> Order | None:
    return await anext(orders, None)


def _order_event(order: Order) -> str:
    return _event("order", order_model(order).model_dump_json())


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
