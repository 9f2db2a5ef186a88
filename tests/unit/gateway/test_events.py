"""Server-sent events of an order."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from gateway.domain.order import Customer, Order, State
from gateway.edge import STREAMS_PER_CUSTOMER

from gateway import sse
from tests.unit.gateway.edge_fakes import World, an_order, down

ALICE = Customer("alice", "", "", "")


async def stream_of(world: World) -> AsyncIterator[str]:
    response = await sse.begin_stream(world.edge(), "order-1", ALICE, "request")
    async for chunk in response.body_iterator:
        assert isinstance(chunk, str)
        yield chunk


def data(event: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(event.partition("data: ")[2])
    return content


def change(world: World, state: State) -> None:
    order = world.fulfillments.orders["alice", "order-1"]
    world.fulfillments.put("alice", replace(order, state=state, update_time=order.update_time + timedelta(seconds=1)))


async def test_a_stream_starts_with_the_present_and_ends_with_the_order(world: World) -> None:
    events = stream_of(world)
    assert (await anext(events)).startswith("retry: ")
    assert data(await anext(events))["state"] == "READY"
    pending = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    change(world, State.DELIVERED)
    assert data(await pending)["state"] == "DELIVERED"
    assert (await anext(events)).startswith("event: end\n")
    assert [event async for event in events] == []


async def test_a_finished_order_is_told_once(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.put("alice", an_order(state=State.CANCELED, keys=0))
    response = await client.get("/v1/orders/order-1/events", headers=world.bearer())
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.text.count("event: order\n") == 1
    assert response.text.endswith("event: end\ndata: {}\n\n")


async def test_silence_is_broken_by_comments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.01)
    events = stream_of(world)
    seen = [await anext(events) for _ in range(4)]
    assert seen[2:] == [": keepalive\n\n"] * 2


async def test_a_stream_lives_for_a_bounded_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_SECONDS", 0.01)
    seen = []
    async for event in stream_of(world):
        seen.append(event)
        if event.startswith(":"):
            world.clock.advance(61)
    assert [event for event in seen if event.startswith("event: end")] == []
    assert len(seen) <= 4


async def test_streams_end_when_the_process_drains(world: World) -> None:
    events = stream_of(world)
    await anext(events)
    await anext(events)
    pending = asyncio.ensure_future(anext(events, "over"))
    await asyncio.sleep(0)
    world.streams.stopping.set()
    assert await pending == "over"


async def test_a_stream_that_fulfillment_ended_is_taken_up_again(world: World) -> None:
    watched = 0

    async def watch(order_id: str, customer: Customer) -> AsyncIterator[Order]:
        nonlocal watched
        watched += 1
        state = State.READY if watched < 3 else State.DELIVERED
        yield replace(await world.fulfillments.get(order_id, customer), state=state)

    world.fulfillments.watch = watch  # type: ignore[method-assign,assignment] # a shorter stream than the fake's
    seen = [event async for event in stream_of(world)]
    assert [data(event)["state"] for event in seen if event.startswith("event: order")] == ["READY", "DELIVERED"]
    assert watched == 3


@pytest.mark.parametrize("error", [down(), RuntimeError("secret")])
async def test_an_error_under_way_ends_the_stream(world: World, error: Exception) -> None:
    events = stream_of(world)
    await anext(events)
    await anext(events)
    pending = asyncio.ensure_future(anext(events, ""))
    await asyncio.sleep(0)
    world.fulfillments.failure = error
    change(world, State.DELIVERED)
    last = await pending
    assert "secret" not in last
    assert last == "" or data(last)["reason"] == "SERVICE_UNAVAILABLE"
    assert [event async for event in events] == []


async def test_an_error_at_the_start_is_an_ordinary_answer(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.failure = down()
    response = await client.get("/v1/orders/order-1/events", headers=world.bearer())
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_empty_stream_is_an_outage(world: World, client: httpx.AsyncClient) -> None:
    async def watch(order_id: str, customer: Customer) -> AsyncIterator[Order]:  # noqa: ARG001 # the port's signature
        return
        yield

    world.fulfillments.watch = watch  # type: ignore[method-assign,assignment] # a stream without anything
    assert (await client.get("/v1/orders/order-1/events", headers=world.bearer())).status_code == 503


def silent(world: World) -> None:
    """Make fulfillment take every watch and never answer it."""

    async def watch(order_id: str, customer: Customer) -> AsyncIterator[Order]:
        await asyncio.Event().wait()
        yield await world.fulfillments.get(order_id, customer)

    world.fulfillments.watch = watch  # type: ignore[method-assign,assignment] # a stream that never begins


async def test_silence_at_the_start_is_an_outage(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "FIRST_SECONDS", 0.01)
    silent(world)
    assert (await client.get("/v1/orders/order-1/events", headers=world.bearer())).status_code == 503
    assert not world.streams._open


async def test_a_customer_holds_a_bounded_number_of_streams(world: World, client: httpx.AsyncClient) -> None:
    silent(world)
    url, headers = "/v1/orders/order-1/events", world.bearer()
    at_once = [asyncio.create_task(client.get(url, headers=headers)) for _ in range(STREAMS_PER_CUSTOMER + 3)]
    refused = [await first for first in asyncio.as_completed(at_once[-3:])]
    assert [answer.status_code for answer in refused] == [429] * 3
    assert refused[0].headers["retry-after"] == "30"
    assert world.streams._open["alice"] == STREAMS_PER_CUSTOMER
    for task in at_once:
        task.cancel()
    await asyncio.gather(*at_once, return_exceptions=True)
    assert not world.streams._open


async def test_a_stream_whose_reader_left_before_it_began_gives_its_place_back(world: World) -> None:
    response = await sse.begin_stream(world.edge(), "order-1", ALICE, "request")
    assert world.streams._open["alice"] == 1

    async def gone(_message: object) -> None:
        raise OSError("the reader has left")

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with suppress(Exception):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, gone)
    assert not world.streams._open
