"""How keys end, what is kept of each, how often one is opened, and how customers are forgotten, on real servers."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from chassis.errors import RemoteError
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.integration.real_servers import eventually, fetch
from tests.integration.vault_replicas import ALICE, Bench, a_seal, a_wish, dump, make_bench, run_audit
from tests.unit.vault.fakes import Recipient

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)

DAYS_LATER = "UPDATE sealed_key SET open_time = open_time - interval '366 days'"


async def seal(bench: Bench, address: str, number: int) -> str:
    request = a_seal(f"kinguin:1:{number}", f"KEY-{number:05}".encode())
    return (await (await bench.call("kinguin-gateway", address)).SealKey(request)).key.key_id


async def seal_and_open(bench: Bench, address: str, numbers: range) -> list[str]:
    fulfillment, recipient = await bench.call("fulfillment", address), Recipient()
    key_ids = [await seal(bench, address, number) for number in numbers]
    for key_id in key_ids:
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(key_id, recipient)))
    return key_ids


def a_sweep(request_id: str = "") -> pb.SweepExpiredRequest:
    return pb.SweepExpiredRequest(request_id=request_id or str(uuid.uuid4()))


def an_erasure(**changes: Any) -> pb.EraseCustomerRequest:
    asked = {"request_id": str(uuid.uuid4()), "customer_id": "alice", "reason": "article 17"}
    return pb.EraseCustomerRequest(**{**asked, **changes})


async def refused(call: Awaitable[object]) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value


async def told(bench: Bench, subject: str) -> list[str]:
    rows = await fetch(bench.database.superuser_url, "SELECT subject, headers ->> 'ce-subject' AS about FROM outbox")
    return sorted(row["about"] for row in rows if row["subject"] == subject)


# Retention


async def test_two_replicas_end_keys_by_themselves_each_once(bench: Bench) -> None:
    bench.environment["KEYFERRY_SWEEP_SECONDS"] = "1"
    address = await bench.here()
    ended = await seal_and_open(bench, address, range(6))
    kept = [await seal(bench, address, 6), *await seal_and_open(bench, address, range(7, 8))]
    await fetch(bench.database.superuser_url, f"{DAYS_LATER} WHERE key_id <> '{kept[1]}'")
    await bench.here()

    async def swept() -> bool:
        rows = await fetch(
            bench.database.superuser_url, "SELECT 1 FROM sealed_key WHERE object_delete_time IS NOT NULL"
        )
        return len(rows) == len(ended)

    await eventually(swept)
    assert bench.objects().keys() == {f"keys/{key_id}" for key_id in kept}
    for subject in ("vault.key.expired", "vault.key.shredded"):
        assert await told(bench, subject) == sorted(ended)
    fulfillment = await bench.call("fulfillment", address)
    error = await refused(fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(ended[0], Recipient()))))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_EXPIRED")
    actions = await bench.audit_actions(ended[0], at_least=5)
    assert actions[-2:] == ["key.expired", "key.shredded"]


@pytest.mark.parametrize("step", ["sweep.after_expire", "shred.after_delete"])
async def test_a_killed_sweep_is_finished_by_the_next_one(bench: Bench, step: str) -> None:
    dying, address = bench.start(failpoints=f"vault.{step}=crash")
    (key_id,) = await seal_and_open(bench, address, range(1))
    await fetch(bench.database.superuser_url, DAYS_LATER)
    assert (
        await refused((await bench.call("fulfillment", address)).SweepExpired(a_sweep()))
    ).code.name == "UNAVAILABLE"
    await eventually(dying.has_ended)
    # The lease of the dead one ends.
    await fetch(bench.database.superuser_url, "UPDATE sealed_key SET object_retry_time = now()")
    fulfillment = await bench.call("fulfillment", await bench.here())
    request = a_sweep()
    answer = await fulfillment.SweepExpired(request)
    assert (answer.expired_count, answer.deleted_object_count) == (0, 1)
    assert await fulfillment.SweepExpired(request) == answer
    assert bench.objects() == {}
    assert await told(bench, "vault.key.expired") == [key_id]


# Deliveries


async def test_a_delivery_log_tells_what_was_done_with_a_key(bench: Bench) -> None:
    here = await bench.here()
    (opened,) = await seal_and_open(bench, here, range(1))
    taken = await seal(bench, here, 1)
    fulfillment = await bench.call("fulfillment", here)
    wish = a_wish(opened, Recipient())
    for _ in range(2):
        await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**wish))
    revoke = pb.RevokeKeysRequest(request_id=str(uuid.uuid4()), order_id="order-1", key_ids=[taken], reason="refunded")
    await fulfillment.RevokeKeys(revoke)
    shred = pb.ShredKeyRequest(request_id=str(uuid.uuid4()), order_id="order-1", key_id=taken, reason="given back")
    await fulfillment.ShredKey(shred)
    log = await fulfillment.GetDeliveryLog(pb.GetDeliveryLogRequest(key_id=opened))
    assert (log.key.link_count, log.key.reveal_count) == (1, 1)
    stored, revealed, linked = log.deliveries
    assert [each.act for each in log.deliveries] == [
        pb.DELIVERY_ACT_STORED,
        pb.DELIVERY_ACT_REVEALED,
        pb.DELIVERY_ACT_LINK_ISSUED,
    ]
    assert (stored.caller, stored.time) == ("vault", log.key.seal_time)
    assert (linked.caller, linked.network, linked.device) == ("", "192.0.0.0/16", "Browser")
    assert linked.request_id == wish["request_id"]
    assert stored.time.ToDatetime() < revealed.time.ToDatetime() < linked.time.ToDatetime()
    log = await fulfillment.GetDeliveryLog(pb.GetDeliveryLogRequest(key_id=taken))
    assert [(each.act, each.caller, each.reason) for each in log.deliveries[1:]] == [
        (pb.DELIVERY_ACT_REVOKED, "fulfillment", "refunded"),
        (pb.DELIVERY_ACT_SHREDDED, "fulfillment", "given back"),
    ]
    assert log.key.HasField("object_delete_time")
    missing = await refused(fulfillment.GetDeliveryLog(pb.GetDeliveryLogRequest(key_id="f" * 32)))
    assert missing.reason == "KEY_NOT_FOUND"


# Limits and accesses


async def test_the_limit_holds_over_replicas_and_says_when_to_come_again(bench: Bench) -> None:
    bench.environment["KEYFERRY_RELEASES_PER_HOUR"] = "4"
    addresses = [await bench.here(), await bench.here()]
    stubs = [await bench.call("fulfillment", address) for address in addresses]
    key_id = await seal(bench, addresses[0], 0)
    wishes = [pb.RevealKeyRequest(**a_wish(key_id, Recipient())) for _ in range(12)]
    answers = await asyncio.gather(
        *(stubs[number % 2].RevealKey(wish) for number, wish in enumerate(wishes)), return_exceptions=True
    )
    errors = [each for each in answers if isinstance(each, RemoteError)]
    assert len(answers) - len(errors) == 4
    for error in errors:
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RELEASE_LIMIT")
        assert error.retry_after is not None
        assert 3590 < error.retry_after.total_seconds() <= 3600
    given = next(number for number, each in enumerate(answers) if not isinstance(each, BaseException))
    await stubs[1].RevealKey(wishes[given])
    log = await stubs[0].GetDeliveryLog(pb.GetDeliveryLogRequest(key_id=key_id))
    assert log.key.reveal_count == 4
    await fetch(bench.database.superuser_url, "UPDATE delivery SET time = time - interval '1 hour'")
    await stubs[0].RevealKey(pb.RevealKeyRequest(**a_wish(key_id, Recipient())))


async def test_an_access_from_elsewhere_is_told_and_the_first_is_not(bench: Bench) -> None:
    here = await bench.here()
    first, second = [await seal(bench, here, number) for number in range(2)]
    fulfillment = await bench.call("fulfillment", here)
    elsewhere = actor_pb2.Actor()
    elsewhere.CopyFrom(ALICE)
    elsewhere.ip_address = "198.51.100.9"
    for key_id, actor in ((first, ALICE), (first, ALICE), (second, elsewhere), (first, elsewhere)):
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(key_id, Recipient(), actor)))
    assert await told(bench, "vault.key.unusual_access") == [second]
    known = str([dict(row) for row in await fetch(bench.database.superuser_url, "TABLE known_access")])
    assert not any(word in known for word in ("alice", "192.0", "198.51", "Browser"))


# Forgetting


async def test_a_customer_is_forgotten_but_not_while_keys_are_owed_to_them(bench: Bench) -> None:
    here = await bench.here()
    opened = await seal_and_open(bench, here, range(3))
    owed = await seal(bench, here, 3)
    fulfillment = await bench.call("fulfillment", here)
    error = await refused(fulfillment.EraseCustomer(an_erasure()))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEYS_UNOPENED")
    assert error.metadata == {"unopened_count": "1", "order_ids": "order-1"}
    assert len(bench.objects()) == 4
    request = an_erasure(forfeit_unopened=True)
    erased = await fulfillment.EraseCustomer(request)
    assert (erased.shredded_count, erased.kept_count, erased.object_pending_count) == (4, 0, 0)
    assert await fulfillment.EraseCustomer(request) == erased
    assert bench.objects() == {}
    assert await told(bench, "vault.key.shredded") == sorted([*opened, owed])
    # Of the tables only the outbox, which ends by itself, still knows the customer: it has to tell audit of them.
    await fetch(bench.database.superuser_url, "TRUNCATE outbox")
    kept = await dump(bench.database)
    assert not [word for word in (b"alice", b"192.0", b"Browser") if word in kept]
    gone = await refused(fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(opened[0], Recipient()))))
    assert gone.reason == "KEY_NOT_FOUND"
    unknown = await fulfillment.EraseCustomer(an_erasure(customer_id="mallory"))
    assert unknown == pb.EraseCustomerResponse()


async def test_a_killed_erasure_is_finished_by_the_repeat(bench: Bench) -> None:
    dying, address = bench.start(failpoints="vault.erase.after_batch=crash")
    await seal_and_open(bench, address, range(2))
    request = an_erasure()
    assert (await refused((await bench.call("fulfillment", address)).EraseCustomer(request))).code.name == "UNAVAILABLE"
    await eventually(dying.has_ended)
    fulfillment = await bench.call("fulfillment", await bench.here())
    await fulfillment.EraseCustomer(request)
    await fetch(bench.database.superuser_url, "UPDATE sealed_key SET object_retry_time = now()")
    await fulfillment.SweepExpired(a_sweep())
    assert bench.objects() == {}
    (row,) = await fetch(bench.database.superuser_url, "SELECT DISTINCT state, owner_digest FROM sealed_key")
    assert (row["state"], row["owner_digest"]) == ("SHREDDED", "-")
