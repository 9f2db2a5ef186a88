"""The audit log's checkpoint: for anybody, as audit signed it, kept for seconds."""

from typing import Any

import grpc
import httpx
import pytest
from chassis.errors import RemoteError
from gateway.adapters.audit_grpc import KEPT_SECONDS, GrpcCheckpoints
from keyferry.audit.v1 import audit_service_pb2 as messages

from tests.unit.gateway.edge_fakes import FakeClock, World, down

URL = "/v1/audit/checkpoint"


async def test_anybody_gets_the_note_as_it_was_signed(world: World, client: httpx.AsyncClient) -> None:
    response = await client.get(URL)
    assert (response.status_code, response.text) == (200, world.checkpoints.note)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "public, max-age=10"
    assert "ratelimit" in response.headers


async def test_one_address_is_limited(world: World) -> None:
    world.limits = {"address": "1/minute"}
    async with world.client() as client:
        assert (await client.get(URL)).status_code == 200
        refused = await client.get(URL)
    assert (refused.status_code, refused.json()["reason"]) == (429, "RATE_LIMITED")
    assert refused.headers["cache-control"] == "no-store"


async def test_without_audit_there_is_none(world: World, client: httpx.AsyncClient) -> None:
    world.checkpoints.failure = down()
    response = await client.get(URL)
    assert (response.status_code, response.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
    assert response.headers["cache-control"] == "no-store"


async def test_it_needs_no_login_by_its_description_either(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"][URL]["get"]
    assert "security" not in operation
    assert "text/plain" in operation["responses"]["200"]["content"]


class Audit:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: RemoteError | None = None

    async def GetCheckpoint(self, _request: object, *, timeout: float) -> messages.GetCheckpointResponse:  # noqa: N802, ASYNC109 # as gRPC names them
        assert timeout > 0
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return messages.GetCheckpointResponse(note=f"note {self.asked}")


async def test_audit_is_asked_once_in_a_while_however_many_ask_the_edge() -> None:
    clock, audit = FakeClock(), Audit()
    channel: Any = grpc.aio.insecure_channel("127.0.0.1:9")
    checkpoints = GrpcCheckpoints(channel, clock)
    checkpoints._stub = audit  # type: ignore[assignment] # as much of it as is used
    assert [await checkpoints.newest() for _ in range(5)] == ["note 1"] * 5
    clock.advance(KEPT_SECONDS)
    assert await checkpoints.newest() == "note 2"
    clock.advance(KEPT_SECONDS)
    audit.failure = down()
    with pytest.raises(RemoteError):
        await checkpoints.newest()
    assert audit.asked == 3
    await channel.close()
