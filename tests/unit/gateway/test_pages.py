"""The pages, without a script: what they show, what they never do, and what they say when something is down."""

import re
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx
import pytest
from chassis.errors import RemoteError
from gateway.domain.order import Amount, Key, State
from gateway.domain.progress import TELLINGS
from gateway.pages import format_money, format_time

from tests.unit.gateway.edge_fakes import START, World, an_order, down, encrypt_to, not_found

HTML = {"accept": "text/html,application/xhtml+xml"}
SHOW = "/orders/order-1/keys/key-order-1-1"


async def form(world: World, client: httpx.AsyncClient, path: str = SHOW) -> httpx.Response:
    session, cookie = world.session()
    headers = {**HTML, **cookie, "origin": "null", "sec-fetch-site": "same-origin"}
    return await client.post(path, data={"csrf_token": session.csrf_token}, headers=headers)


async def page(world: World, client: httpx.AsyncClient, path: str, subject: str = "alice") -> httpx.Response:
    _, cookie = world.session(subject)
    return await client.get(path, headers={**HTML, **cookie})


async def test_every_answer_carries_the_security_headers(world: World, client: httpx.AsyncClient) -> None:
    for path in ("/", "/orders/order-1", "/orders/nope", "/nope", "/docs", "/login", "/logout", "/openapi.json"):
        response = await page(world, client, path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "connect-src 'self' https://objects.example.test" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["strict-transport-security"]
        assert "<style" not in response.text
        assert " style=" not in response.text
        assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)
        assert not re.search(r"\son\w+=", response.text)


async def test_the_list_shows_only_my_orders(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.put("bob", an_order("order-of-bob"))
    mine = await page(world, client, "/")
    assert "order-1" in mine.text
    assert "order-of-bob" not in mine.text
    assert "Half Life &lt;3&gt;" in mine.text
    assert "No orders yet" in (await page(world, client, "/", "carol")).text


async def test_the_list_has_pages(world: World, client: httpx.AsyncClient) -> None:
    for number in range(25):
        world.fulfillments.put("dave", an_order(f"d-{number}"))
    first = await page(world, client, "/", "dave")
    assert 'href="/?page_token=20"' in first.text
    second = await page(world, client, "/?page_token=20", "dave")
    assert "d-24" in second.text
    assert "No older orders" in (await page(world, client, "/?page_token=40", "dave")).text


@pytest.mark.parametrize("state", list(State))
async def test_every_state_is_told_in_words(world: World, client: httpx.AsyncClient, state: State) -> None:
    world.fulfillments.put("alice", an_order(state=state, keys=0))
    response = await page(world, client, "/orders/order-1")
    assert TELLINGS[state].headline in response.text
    assert ('http-equiv="refresh"' in response.text) is (state not in (State.DELIVERED, State.CANCELED, State.REFUNDED))


async def test_looking_never_opens_anything(world: World, client: httpx.AsyncClient) -> None:
    for path in ("/", "/orders/order-1", "/v1/orders/order-1"):
        response = await page(world, client, path)
        assert response.status_code == 200
        assert "AAAA-BBBB" not in response.text
    back = await page(world, client, SHOW)
    assert (back.status_code, back.headers["location"]) == (303, "/orders/order-1")
    assert (await client.head(SHOW)).status_code == 405
    assert world.fulfillments.requests == []


async def test_a_form_opens_one_key_for_one_answer(world: World, client: httpx.AsyncClient) -> None:
    response = await form(world, client)
    assert response.status_code == 200
    assert '<output class="secret">AAAA-BBBB-CCCC</output>' in response.text
    assert response.headers["cache-control"] == "no-store"
    assert "order.js" not in response.text
    assert len(world.fulfillments.requests) == 1
    assert "AAAA-BBBB" not in (await page(world, client, "/orders/order-1")).text


@pytest.mark.parametrize(
    ("content_type", "extension"), [("image/png", "png"), ("image/jpeg", "jpg"), ("image/gif", "gif")]
)
async def test_a_form_shows_a_picture(
    world: World, client: httpx.AsyncClient, content_type: str, extension: str
) -> None:
    world.fulfillments.plaintexts["key-order-1-1"] = (content_type, b"\x89PNG")
    response = await form(world, client)
    assert f'src="data:{content_type};base64,iVBORw=="' in response.text
    assert f'download="game-key-key-order-1-1.{extension}"' in response.text
    assert "img-src 'self' data:" in response.headers["content-security-policy"]


async def test_a_key_is_escaped_like_everything_else(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.plaintexts["key-order-1-1"] = ("text/plain", b"<script>alert(1)</script>")
    response = await form(world, client)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.text


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_forged_form_opens_nothing(world: World, client: httpx.AsyncClient, token: str) -> None:
    _, cookie = world.session()
    headers = {**HTML, **cookie, "sec-fetch-site": "same-origin"}
    response = await client.post(SHOW, data={"csrf_token": token}, headers=headers)
    assert response.status_code == 403
    assert "CSRF_REJECTED" in response.text
    assert world.fulfillments.requests == []


@pytest.mark.parametrize(
    ("failure", "status", "sentence"),
    [
        (down(), 503, "Your key is safe"),
        (not_found(), 404, "This key is not available"),
        (RemoteError("x", code=grpc.StatusCode.DATA_LOSS, reason="KEY_CORRUPTED"), 500, "A person is looking"),
        (RemoteError("x", code=grpc.StatusCode.INTERNAL, reason="INTERNAL"), 500, "The key could not be opened"),
        (
            RemoteError("x", code=grpc.StatusCode.FAILED_PRECONDITION, reason="KEY_REVOKED"),
            409,
            "This key was taken back and cannot be opened any more",
        ),
        (
            RemoteError("x", code=grpc.StatusCode.FAILED_PRECONDITION, reason="KEY_EXPIRED"),
            409,
            "This key is not kept any more",
        ),
        (
            RemoteError("x", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RELEASE_LIMIT"),
            429,
            "too many tries in a short time",
        ),
    ],
)
async def test_a_key_that_cannot_be_opened_leaves_the_page_standing(
    world: World,
    client: httpx.AsyncClient,
    logs: list[MutableMapping[str, Any]],
    *,
    failure: RemoteError,
    status: int,
    sentence: str,
) -> None:
    world.fulfillments.open_failure = failure
    response = await form(world, client)
    assert response.status_code == status
    assert sentence in response.text
    assert "Ready for you" in response.text
    recorded = [line["reason"] for line in logs if line["event"] == "request failed"]
    assert recorded == ([failure.reason] if status == 500 else [])


@pytest.mark.parametrize("answer", ["not a jwe", "other type", "other key"])
async def test_an_answer_that_does_not_open_is_our_fault(world: World, client: httpx.AsyncClient, answer: str) -> None:
    reveal = world.fulfillments.reveal_key

    async def strange(request):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 # a stand-in for one method
        if answer == "other type":
            return encrypt_to(request.recipient_jwk, b"x", cty="text/html")
        return "a.b.c.d.e" if answer == "not a jwe" else (await reveal(request))[:-4] + "AAAA"

    world.fulfillments.reveal_key = strange  # type: ignore[method-assign] # same
    response = await form(world, client)
    assert response.status_code == 500
    assert "The key could not be opened" in response.text


async def test_an_outage_is_told_honestly(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.failure = down()
    response = await page(world, client, "/orders/order-1")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "Your orders and keys are safe" in response.text
    assert "10.0.0.7" not in response.text
    assert 'href="/orders/order-1"' in response.text


async def test_a_refused_page_says_who_is_logged_in(world: World, client: httpx.AsyncClient) -> None:
    response = await page(world, client, "/orders/order-1", "bob")
    assert response.status_code == 404
    assert "bob@example.test" in response.text
    assert 'action="/logout"' in response.text


async def test_programs_get_problems_and_people_get_pages(world: World, client: httpx.AsyncClient) -> None:
    response = await page(world, client, "/orders/nope")
    assert response.headers["content-type"].startswith("text/html")
    assert "ORDER_NOT_FOUND" in response.text
    _, cookie = world.session()
    plain = await client.get("/orders/nope", headers={**cookie, "accept": "*/*"})
    assert plain.headers["content-type"] == "application/problem+json"


async def test_static_files_are_kept_under_their_digest(world: World, client: httpx.AsyncClient) -> None:
    html = (await page(world, client, "/orders/order-1")).text
    paths = re.findall(r'"(/static/[^"]+)"', html)
    assert len(paths) >= 3
    for path in paths:
        response = await client.get(path)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
    other = await client.get("/static/0000/page.css")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-store")
    for path in ("/static/0000/nope.css", "/static/0000/..%2f..%2fconfig.py"):
        assert (await client.get(path)).status_code == 404


async def test_the_docs_show_every_operation(client: httpx.AsyncClient) -> None:
    html = (await client.get("/docs", headers=HTML)).text
    document = (await client.get("/openapi.json")).json()
    assert all(f">{path}<" in html for path in document["paths"])
    assert all(re.match(r"[/#](?!/)", address) for address in re.findall(r'(?:src|href)="([^"]*)"', html))


async def test_an_opened_key_says_when(world: World, client: httpx.AsyncClient) -> None:
    order = an_order("order-1")
    key = Key("key-1", "text/plain", START, START)
    world.fulfillments.put("alice", replace(order, lines=(replace(order.lines[0], keys=(key,)),)))
    html = (await page(world, client, "/orders/order-1")).text
    assert "Opened <time datetime=" in html


async def test_an_odd_address_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    response = await page(world, client, "/orders/a%00b")
    assert response.status_code == 400
    assert "Your orders" in response.text


def test_money_and_times_are_written_for_people() -> None:
    assert format_money(Amount("EUR", 1999)) == "€19.99"
    assert format_money(Amount("JPY", 500)) == "¥500"
    assert format_money(Amount("KWD", 1500)).endswith("1.500")
    told = format_time(datetime(2026, 11, 3, 9, 5, tzinfo=UTC))
    assert told == '<time datetime="2026-11-03T09:05:00+00:00">3 Nov 2026, 09:05 UTC</time>'
