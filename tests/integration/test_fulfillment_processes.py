"""Replicas in processes of their own, since only a process can die, drain, and write a log."""

import os
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from chassis.jetstream import connect_nats
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.type.v1 import actor_pb2
from sandbox.pki import Identity

from tests.integration.fulfillment_system import ALICE, System
from tests.integration.real_servers import Postgres, eventually


@pytest.fixture
async def system(
    postgres: Postgres, streams: str, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    async with System.opened(postgres, streams, pki, tmp_path) as system:
        yield system


async def redeliver_soon(url: str) -> None:
    """Have JetStream hand out again after 2 s, instead of 30 s, what a dead process did not acknowledge."""
    async with connect_nats(url, name="test") as client:
        context = client.jetstream()
        config = (await context.consumer_info("PAYMENTS", "fulfillment-payments")).config
        await context.add_consumer("PAYMENTS", replace(config, ack_wait=2))


@pytest.mark.parametrize(
    "step",
    [
        "consumer.before_commit",
        "consumer.after_commit",
        "fulfillment.claim.before_commit",
        "fulfillment.claim.after_commit",
        "fulfillment.place.before_call",
        "fulfillment.place.after_call",
        "fulfillment.place.before_commit",
        "fulfillment.collect.after_call",
        "fulfillment.mail.after_send",
    ],
)
async def test_a_replica_that_dies_at_any_step_is_followed_by_another(system: System, step: str) -> None:
    await redeliver_soon(system.nats_url)
    dying = system.start(failpoints=f"{step}=crash")
    assert dying.process is not None
    await system.pay("order-1", quantity=2)
    await eventually(dying.process.has_ended)
    assert dying.process.exit_status == 137
    # The dead one's lease would be waited for; a test may end it.
    await system.rows("UPDATE purchase SET run_at = now(), lease_until = NULL WHERE run_at IS NOT NULL")
    await system.rows("UPDATE mail SET run_at = now() WHERE run_at IS NOT NULL")
    async with system.inside():
        await system.until("READY", "order-1")
        mails = await system.until_mailed("order-1")
    assert [request.quantity for request in system.kinguin.sold.values()] == [2]
    assert len(await system.rows("TABLE order_key")) == 2
    assert len(mails) == (2 if step == "fulfillment.mail.after_send" else 1)
    assert len({str(mail.content["Message-ID"]) for mail in mails}) == 1


async def test_a_replica_drains_and_ends_well(system: System) -> None:
    replica = system.start()
    assert replica.process is not None
    await system.pay("order-1")
    await system.until("READY", "order-1")
    async with system.calling(replica, identity="edge") as edge:
        watching = edge.WatchFulfillment(pb.WatchFulfillmentRequest(order_id="order-1", actor=ALICE))
        assert (await anext(aiter(watching))).fulfillment.order_id == "order-1"
        os.kill(replica.process.pid, signal.SIGTERM)
        await eventually(replica.process.has_ended)
    assert replica.process.exit_status == 0


async def test_logs_and_events_name_nobody(system: System) -> None:
    replica = system.start()
    assert replica.process is not None
    await system.pay("order-1")
    await system.until_mailed("order-1")
    async with system.calling(replica, identity="edge") as edge:
        key_id = (await system.rows("SELECT key_id FROM order_key"))[0]["key_id"]
        request = pb.RevealKeyRequest(
            request_id=str(uuid.uuid4()), order_id="order-1", key_id=key_id, actor=ALICE, recipient_jwk=b'{"kty":"EC"}'
        )
        assert (await edge.RevealKey(request)).key_jwe == "key.jwe"
    replica.process.stop()
    said = replica.process.log.read_text(encoding="utf-8")
    for word in ("alice", "192.0.2.7", "key.jwe", "kty"):
        assert word not in said
    events = b"".join(row["data"] for row in await system.rows("SELECT data FROM outbox"))
    assert b"alice@example.com" not in events
    assert system.vault.reveals[0].actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER
