"""Schemathesis on the edge's own OpenAPI document, over real sockets, on fakes below its ports.

KEYFERRY_PROOF=full tries many more requests.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway.domain.order import State
from gateway.server import HttpServer
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.testing import capture_logs

from tests.unit.gateway.edge_fakes import WEBHOOK_SECRET, World, an_order, one_time_key

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
EXAMPLES = 300 if FULL else 6
SECONDS = 600 if FULL else 90
EVENTS = ["order.status", "order.complete", "product.update"]
# What every operation answers to a request that is right.
GOOD = {
    "GET /v1/orders": 200,
    "GET /v1/orders/{order_id}": 200,
    "GET /v1/orders/{order_id}/events": 200,
    "POST /v1/orders/{order_id}/keys/{key_id}/download-link": 200,
    "POST /v1/orders/{order_id}/keys/{key_id}/reveal": 200,
    "GET /v1/audit/checkpoint": 200,
    "POST /webhooks/kinguin": 204,
}


@dataclass
class Counted:
    """Counts answers by operation and status on their way out."""

    app: ASGIApp
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                self.answers[f"{scope['method']} {route}", message["status"]] += 1
            await send(message)

        await self.app(scope, receive, count)


@dataclass(frozen=True)
class Edge:
    """The edge, listening."""

    world: World
    counted: Counted
    url: str

    async def document(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            document: dict[str, Any] = (await client.get(f"{self.url}/openapi.json")).json()
            return document


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    plenty = dict.fromkeys(("address", "customer", "open_key", "refused_webhook"), "1000000/second")
    world = World(limits=plenty)
    # An order that changes no more, so that its stream ends.
    world.fulfillments.put("alice", an_order(state=State.DELIVERED))
    counted = Counted(world.app())
    server = HttpServer(counted, listen="127.0.0.1:0", streams=world.streams, trusted_proxies=(), drain_seconds=1)
    await server.start()
    with capture_logs():
        yield Edge(world, counted, f"http://127.0.0.1:{server.port}")
    await server.drain(5)


def sharpened(document: dict[str, Any]) -> dict[str, Any]:
    """Say what the document can say in words only: which ids there are, which event has which body."""
    known = {"order_id": "order-1", "key_id": "key-order-1-1", "page_token": ""}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in known:
                    parameter["schema"] = {"type": "string", "enum": [known[parameter["name"]]]}
                if parameter["name"] == "X-Event-Name":
                    parameter |= {"schema": {"type": "string", "enum": EVENTS}, "required": True}
        if path == "/webhooks/kinguin":
            content = operations["post"]["requestBody"]["content"]["application/json"]
            # A body that is right under each of the names.
            content["schema"] = {"allOf": [form for form in content["schema"]["anyOf"] if form["title"] in EVENTS]}
            operations["post"]["requestBody"]["required"] = True
    _, public = one_time_key()
    request = document["components"]["schemas"]["RecipientRequest"]
    request["properties"]["recipient_jwk"] = {"type": "object", "enum": [public]}
    return document


@pytest.mark.parametrize("kind", ["as it is", "sharpened"])
async def test_schemathesis_finds_nothing_that_the_document_does_not_say(kind: str, edge: Edge, tmp_path: Path) -> None:
    document = await edge.document()
    command = [str(Path(sys.executable).with_name("st")), "run", str(tmp_path / "openapi.json"), "--url", edge.url]
    command += ["-H", f"Authorization: {edge.world.bearer()['authorization']}"]
    command += ["-H", f"X-Event-Secret: {WEBHOOK_SECRET}"]
    command += [
        "--phases",
        "coverage,fuzzing,stateful" if FULL else "coverage,fuzzing",
        "--seed",
        "1",
        "--max-examples",
        str(EXAMPLES),
        "--warnings",
        "off",
        "--no-color",
    ]
    if kind == "as it is":
        # Page tokens are made by us and keys are points of a curve, which no schema can say.
        command += ["--exclude-checks", "positive_data_acceptance"]
    else:
        document = sharpened(document)
        command += ["--mode", "positive"]
    (tmp_path / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0, output.decode()
    answers = edge.counted.answers
    assert not [answer for answer in answers if answer[1] >= 500]
    documented = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    assert documented == GOOD.keys()
    assert documented <= {operation for operation, _ in answers}
    if kind == "sharpened":
        assert all(answers[operation, status] for operation, status in GOOD.items())
        assert {hint.event_name for hint in edge.world.webhooks.stored} == set(EVENTS)
