"""Vault's server over mutual TLS, with real PostgreSQL, NATS, S3 and audit."""

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from chassis.errors import RemoteError
from chassis.jetstream import connect_nats
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from sandbox.ports import free_port

from tests.integration.real_servers import eventually, fetch
from tests.integration.vault_replicas import (
    ALICE,
    BOB,
    GAME_KEY,
    Bench,
    a_seal,
    a_wish,
    fetch_and_open,
    make_bench,
    run_audit,
)
from tests.unit.vault.fakes import Recipient

if TYPE_CHECKING:
    from collections.abc import Awaitable

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)


async def seal(bench: Bench, address: str, request: pb.SealKeyRequest | None = None) -> pb.SealedKey:
    return (await (await bench.call("kinguin-gateway", address)).SealKey(request or a_seal())).key


# The straight road


async def test_a_key_is_sealed_linked_fetched_and_opened_by_its_owner(bench: Bench) -> None:
    here, recipient = await bench.here(), Recipient()
    sealed = await seal(bench, here)
    assert sealed.state == pb.STATE_SEALED
    fulfillment = await bench.call("fulfillment", here)
    link = await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, recipient)))
    assert await fetch_and_open(link, recipient) == GAME_KEY
    revealed = await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient)))
    assert recipient.open(revealed.key_jwe) == GAME_KEY
    actions = await bench.audit_actions(sealed.key_id, at_least=5)
    assert sorted(actions) == [
        "key.link_authorized",
        "key.link_released",
        "key.reveal_authorized",
        "key.reveal_released",
        "key.sealed",
    ]
    assert actions.index("key.reveal_authorized") < actions.index("key.reveal_released")


@pytest.mark.parametrize("size", [70_000, 1024 * 1024])
async def test_a_picture_of_any_allowed_size_goes_the_whole_way(bench: Bench, size: int) -> None:
    here, recipient = await bench.here(), Recipient()
    picture = b"\x89PNG\r\n\x1a\n" + bytes(size - 8)
    request = a_seal(plaintext=picture)
    request.content_type = "image/png"
    sealed = await seal(bench, here, request)
    revealed = await (await bench.call("fulfillment", here)).RevealKey(
        pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient))
    )
    assert recipient.open(revealed.key_jwe) == picture


async def test_a_repeat_opens_once_for_the_shop(bench: Bench) -> None:
    here, recipient = await bench.here(), Recipient()
    sealed = await seal(bench, here)
    fulfillment = await bench.call("fulfillment", here)
    async with connect_nats(bench.audit.nats_url, name="test") as client:
        before = (await client.jetstream().stream_info("VAULT")).state.messages
        wish = pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient))
        for _ in range(3):
            await fulfillment.RevealKey(wish)
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient)))

        async def all_published() -> bool:
            waiting = "SELECT 1 FROM outbox WHERE publish_time IS NULL"
            return await fetch(bench.database.superuser_url, waiting) == []

        await eventually(all_published)
        assert (await client.jetstream().stream_info("VAULT")).state.messages == before + 2


async def test_a_key_that_was_sold_to_us_twice_is_held_and_not_opened(bench: Bench) -> None:
    here = await bench.here()
    await seal(bench, here)
    twice = await seal(bench, here, a_seal("kinguin:2:1"))
    assert twice.state == pb.STATE_HELD
    fulfillment = await bench.call("fulfillment", here)
    with pytest.raises(RemoteError) as raised:
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(twice.key_id, Recipient())))
    assert (raised.value.reason, raised.value.metadata) == ("KEY_NOT_READY", {"state": "HELD"})
    assert await bench.audit_actions(twice.key_id, at_least=1) == ["key.held"]


async def test_another_key_under_a_known_source_is_refused(bench: Bench) -> None:
    here = await bench.here()
    await seal(bench, here)
    with pytest.raises(RemoteError) as raised:
        await seal(bench, here, a_seal(plaintext=b"another"))
    assert raised.value.code is grpc.StatusCode.ALREADY_EXISTS
    assert raised.value.reason == "SOURCE_REF_CONFLICT"


async def test_a_leaked_link_is_useless_without_its_content_key(bench: Bench) -> None:
    """Whoever has the URL gets the ciphertext, from the real store and without credentials, and nothing more."""
    here, recipient = await bench.here(), Recipient()
    sealed, other = await seal(bench, here), await seal(bench, here, a_seal("kinguin:1:2", b"another key"))
    fulfillment = await bench.call("fulfillment", here)
    links = [
        await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(key.key_id, recipient)))
        for key in (sealed, other)
    ]
    async with httpx.AsyncClient() as stranger:
        leaked = (await stranger.get(links[0].url)).raise_for_status().content
    right = recipient.open(links[0].content_key_jwe)
    one_bit_off = [
        bytes(byte ^ (1 << bit if at == position else 0) for at, byte in enumerate(right))
        for position in range(32)
        for bit in range(8)
    ]
    wrong = [
        *one_bit_off,
        *(os.urandom(32) for _ in range(1_000)),
        *(recipient.open(links[1].content_key_jwe), bytes(32), b"\xff" * 32, links[0].object_sha256),
        *(hashlib.sha256(guess).digest() for guess in (b"", b"order-1", b"alice", sealed.key_id.encode(), leaked)),
    ]
    for key in wrong:
        with pytest.raises(JoseError):
            jwe.decrypt_compact(leaked.decode(), OctKey.import_key(key))
    assert jwe.decrypt_compact(leaked.decode(), OctKey.import_key(right)).plaintext == GAME_KEY
    assert GAME_KEY not in leaked
    assert b"alice" not in leaked


# Who may not


async def test_somebody_else_gets_what_nobody_gets_and_is_written_down(bench: Bench) -> None:
    here = await bench.here()
    sealed = await seal(bench, here)
    fulfillment = await bench.call("fulfillment", here)
    answers = []
    for key_id in (sealed.key_id, "f" * 32):
        with pytest.raises(RemoteError) as raised:
            await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(key_id, Recipient(), BOB)))
        answers.append((raised.value.code, raised.value.reason, raised.value.message, raised.value.metadata))
    assert answers[0] == answers[1]
    assert answers[0][:2] == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
    actions = await bench.audit_actions(sealed.key_id, at_least=2)
    assert sorted(actions) == ["key.access_denied", "key.sealed"]


async def refusal(call: "Awaitable[object]") -> str:
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value.reason


async def test_an_identity_calls_only_what_it_is_listed_for(bench: Bench) -> None:
    here = await bench.here()
    reasons: dict[str, tuple[str, ...]] = {}
    for identity in ("edge", "fulfillment", "kinguin-gateway", "vault", "audit", "shop"):
        stub = await bench.call(identity, here)
        reasons[identity] = (
            await refusal(stub.SealKey(pb.SealKeyRequest())),
            await refusal(stub.CreateDownloadLink(pb.CreateDownloadLinkRequest())),
            await refusal(stub.RevealKey(pb.RevealKeyRequest())),
            await refusal(stub.RevokeKeys(pb.RevokeKeysRequest())),
            await refusal(stub.ShredKey(pb.ShredKeyRequest())),
            await refusal(stub.GetKey(pb.GetKeyRequest())),
            await refusal(stub.ListKeys(pb.ListKeysRequest(page_size=-1))),
        )
        if identity != "fulfillment":
            assert await refusal(stub.GetUploadKey(pb.GetUploadKeyRequest())) == "METHOD_NOT_ALLOWED"
    # Who is let in is told what is wrong with the request.
    refused, let_in = "METHOD_NOT_ALLOWED", "INVALID_REQUEST"
    assert reasons.pop("kinguin-gateway") == (let_in, *[refused] * 6)
    assert reasons.pop("fulfillment") == (let_in,) * 7
    assert set(reasons.values()) == {(refused,) * 7}


async def test_fulfillment_never_hands_over_a_plain_key_nor_the_gateway_an_upload(bench: Bench) -> None:
    here = await bench.here()
    for identity, message in (("fulfillment", a_seal()), ("kinguin-gateway", a_seal(plaintext=b""))):
        if identity == "kinguin-gateway":
            message.key_jwe = "x"
        with pytest.raises(RemoteError) as raised:
            await (await bench.call(identity, here)).SealKey(message)
        assert raised.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert raised.value.reason == "METHOD_NOT_ALLOWED"
    assert await fetch(bench.database.superuser_url, "TABLE sealed_key") == []


async def test_faults_are_told_by_field_and_nothing_is_stored(bench: Bench) -> None:
    with pytest.raises(RemoteError) as raised:
        await seal(bench, await bench.here(), pb.SealKeyRequest(source_ref="kinguin:\x00"))
    fields = {fault.field for fault in raised.value.field_violations}
    assert {"request_id", "source_ref", "order_id", "customer_id", "content_type", "plaintext_key"} <= fields
    assert await fetch(bench.database.superuser_url, "TABLE sealed_key") == []


# What is away or was changed


async def test_without_audit_no_key_is_opened(bench: Bench) -> None:
    here = await bench.here(KEYFERRY_AUDIT_ADDRESS=f"127.0.0.1:{free_port()}")
    sealed = await seal(bench, here)
    fulfillment = await bench.call("fulfillment", here)
    with pytest.raises(RemoteError) as raised:
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, Recipient())))
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == "AUDIT_UNAVAILABLE"
    assert await fetch(bench.database.superuser_url, "TABLE release_request") == []
    assert await fetch(bench.database.superuser_url, "SELECT 1 FROM outbox WHERE subject = 'vault.key.opened'") == []


async def test_a_request_id_that_audit_knows_from_elsewhere_is_not_used_again(bench: Bench) -> None:
    here = await bench.here()
    sealed = await seal(bench, here)
    fulfillment, wish = await bench.call("fulfillment", here), a_wish(sealed.key_id, Recipient())
    await fulfillment.RevealKey(pb.RevealKeyRequest(**wish))
    # As after a crash between the entry and the row; then the customer comes back over another network.
    await fetch(bench.database.superuser_url, "DELETE FROM release_request")
    elsewhere = actor_pb2.Actor()
    elsewhere.CopyFrom(ALICE)
    elsewhere.ip_address = "198.51.100.9"
    with pytest.raises(RemoteError) as raised:
        await fulfillment.RevealKey(pb.RevealKeyRequest(**{**wish, "actor": elsewhere}))
    assert raised.value.reason == "REQUEST_ID_REUSED"


async def test_a_key_whose_object_was_changed_is_corrupted(bench: Bench) -> None:
    here = await bench.here()
    sealed = await seal(bench, here)
    bench.s3.put_object(Bucket=bench.environment["R2_BUCKET"], Key=sealed.object_name, Body=b"changed")
    fulfillment = await bench.call("fulfillment", here)
    with pytest.raises(RemoteError) as raised:
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, Recipient())))
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.DATA_LOSS, "KEY_CORRUPTED")
    actions = await bench.audit_actions(sealed.key_id, at_least=3)
    assert sorted(actions) == ["key.reveal_authorized", "key.reveal_failed", "key.sealed"]


# Replicas


async def test_two_replicas_that_seal_the_same_at_once_make_one_row_and_one_object(bench: Bench) -> None:
    replicas = [await bench.here(), await bench.here()]
    stubs = [await bench.call("kinguin-gateway", address) for address in replicas]
    sources = [f"kinguin:1:{number}" for number in range(10)]
    requests = [stub.SealKey(a_seal(source, source.encode())) for source in sources for stub in stubs for _ in range(3)]
    answers = [answer.key for answer in await asyncio.gather(*requests)]
    key_ids = {answer.key_id for answer in answers}
    assert len(key_ids) == 10
    assert {answer.state for answer in answers} == {pb.STATE_SEALED}
    rows = await fetch(bench.database.superuser_url, "TABLE sealed_key")
    assert {(row["key_id"], row["state"], row["generation"]) for row in rows} == {
        (key_id, "SEALED", 0) for key_id in key_ids
    }
    assert bench.objects().keys() == {f"keys/{key_id}" for key_id in key_ids}
    recipient = Recipient()
    revealed = await (await bench.call("fulfillment", replicas[1])).RevealKey(
        pb.RevealKeyRequest(**a_wish(answers[0].key_id, recipient))
    )
    assert recipient.open(revealed.key_jwe) == b"kinguin:1:0"


async def test_two_replicas_that_get_one_game_key_from_two_sources_at_once_hold_one(bench: Bench) -> None:
    stubs = [await bench.call("kinguin-gateway", await bench.here()) for _ in range(2)]
    for number in range(10):
        same = f"game key {number}".encode()
        requests = [stub.SealKey(a_seal(f"kinguin:{number}:{index}", same)) for index, stub in enumerate(stubs)]
        answers = await asyncio.gather(*requests)
        assert sorted(answer.key.state for answer in answers) == [pb.STATE_SEALED, pb.STATE_HELD]
