"""What is asked of vault, and what its answers come to."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest
from chassis.errors import RemoteError
from fulfillment.adapters.vault_grpc import MOST_PAGES, GrpcVault
from fulfillment.domain.model import ItemId, KeyId, OrderId
from fulfillment.errors import KeyNotNeeded
from fulfillment.facts import timestamp
from fulfillment.ports.keeping import DeliveryAct, ErasedKeys, VaultErasure
from fulfillment.ports.vault import FoundKey, NoWord, RevokeAnswer, Revoked, SomeOpened, Upload, Uploaded
from google.protobuf.message import Message
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.unit.fulfillment.grpc_peer import Peer

ORDER_ID = OrderId("order-1")
A, B = KeyId("key-a"), KeyId("key-b")
UPLOAD = Upload(
    "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11",
    "manual/1",
    ORDER_ID,
    ItemId("item-1"),
    "alice",
    "text/plain",
    "uploaded.key.jwe",
)


def failing(reason: str, **metadata: str) -> RemoteError:
    return RemoteError("on purpose", code=grpc.StatusCode.FAILED_PRECONDITION, reason=reason, metadata=metadata)


def vault_of(peer: Peer) -> GrpcVault:
    return GrpcVault(cast("grpc.aio.Channel", peer))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (pb.RevokeKeysResponse(), Revoked()),
        (failing("KEY_OPENED", opened_key_ids="key-b"), SomeOpened([B])),
        (failing("KEY_OPENED", opened_key_ids="key-a,key-b"), SomeOpened([A, B])),
        (failing("KEY_OPENED"), NoWord()),
        (failing("KEY_NOT_FOUND", opened_key_ids="key-a"), NoWord()),
        (failing("SERVICE_UNAVAILABLE"), NoWord()),
    ],
)
async def test_keys_are_revoked_or_were_opened_by_vaults_word_alone(
    answer: Message | Exception, expected: RevokeAnswer
) -> None:
    peer = Peer(answer)
    assert await vault_of(peer).revoke_keys(ORDER_ID, [B, A], why="the order was canceled") == expected
    (request,) = peer.requests
    assert isinstance(request, pb.RevokeKeysRequest)
    assert (request.order_id, request.reason) == ("order-1", "the order was canceled")
    assert list(request.key_ids) == ["key-a", "key-b"]


async def test_the_same_question_has_the_same_request_id_and_another_one_another() -> None:
    peer = Peer(*[pb.RevokeKeysResponse()] * 5)
    for order_id, key_ids, why in [
        ("order-1", [A, B], "canceled"),
        ("order-1", [B, A], "canceled"),
        ("order-1", [A], "canceled"),
        ("order-1", [A, B], "refunded"),
        ("order-2", [A, B], "canceled"),
    ]:
        await vault_of(peer).revoke_keys(OrderId(order_id), key_ids, why=why)
    first, again, *others = [cast("Any", request).request_id for request in peer.requests]
    assert first == again
    assert len({first, *others}) == 4


async def test_of_no_keys_nobody_is_asked() -> None:
    peer = Peer()
    assert await vault_of(peer).revoke_keys(ORDER_ID, [], why="canceled") == Revoked()
    assert not peer.requests


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (pb.ShredKeyResponse(), True),
        (failing("KEY_OPENED"), False),
        (failing("OBJECT_STORE_UNAVAILABLE"), False),
    ],
)
async def test_a_key_is_destroyed_once_vault_says_so(answer: Message | Exception, *, expected: bool) -> None:
    peer = Peer(answer)
    assert await vault_of(peer).shred_key(ORDER_ID, A, why="canceled") is expected
    (request,) = peer.requests
    assert isinstance(request, pb.ShredKeyRequest)
    assert (request.order_id, request.key_id, request.reason) == ("order-1", "key-a", "canceled")


OPENED = datetime(2026, 1, 2, tzinfo=UTC)
THERE = [
    pb.SealedKey(
        key_id="key-a",
        item_id="item-1",
        source_ref="kinguin:PHS1:k:1",
        content_type="text/plain",
        state=pb.STATE_SEALING,
    ),
    pb.SealedKey(key_id="key-b", item_id="item-1", source_ref="kinguin:PHS1:k2", state=pb.STATE_HELD),
    pb.SealedKey(key_id="key-c", item_id="item-1", source_ref="manual:kf1-x:7", state=pb.STATE_REVOKED),
    pb.SealedKey(key_id="key-d", item_id="item-2", source_ref="kinguin:PHS2:k1", open_time=timestamp(OPENED)),
]


async def test_every_key_of_an_order_is_found_with_where_it_came_from() -> None:
    peer = Peer(pb.ListKeysResponse(keys=THERE[:3], next_page_token="more"), pb.ListKeysResponse(keys=THERE[3:]))
    found = await vault_of(peer).keys_of(ORDER_ID)
    assert found == [
        FoundKey(A, ItemId("item-1"), "PHS1", "text/plain", sealed=False),
        FoundKey(B, ItemId("item-1"), "PHS1", "", held=True),
        FoundKey(KeyId("key-c"), ItemId("item-1"), "", "", taken_back=True),
        FoundKey(KeyId("key-d"), ItemId("item-2"), "PHS2", "", open_time=OPENED),
    ]
    assert [cast("pb.ListKeysRequest", request).order_id for request in peer.requests] == ["order-1", "order-1"]


@pytest.mark.parametrize("answer", [failing("SERVICE_UNAVAILABLE"), pb.ListKeysResponse(next_page_token="for ever")])
async def test_what_is_not_listed_to_its_end_is_not_known(answer: Message | Exception) -> None:
    assert await vault_of(Peer(*[answer] * MOST_PAGES)).keys_of(ORDER_ID) == NoWord()


async def test_the_upload_key_passes_through_unread() -> None:
    assert await vault_of(Peer(pb.GetUploadKeyResponse(upload_jwk=b"{}"))).upload_jwk() == b"{}"


@pytest.mark.parametrize(("state", "held"), [(pb.STATE_SEALED, False), (pb.STATE_HELD, True)])
async def test_an_upload_is_sealed_as_it_came(state: pb.State.ValueType, *, held: bool) -> None:
    peer = Peer(pb.SealKeyResponse(key=pb.SealedKey(key_id="key-a", state=state)))
    assert await vault_of(peer).seal_upload(UPLOAD) == Uploaded(A, held=held)
    assert peer.requests == [
        pb.SealKeyRequest(
            request_id=UPLOAD.request_id,
            source_ref="manual/1",
            order_id="order-1",
            item_id="item-1",
            customer_id="alice",
            content_type="text/plain",
            key_jwe="uploaded.key.jwe",
        )
    ]


@pytest.mark.parametrize("state", [pb.STATE_REVOKED, pb.STATE_SHREDDED, pb.STATE_SEALING])
async def test_an_upload_that_was_taken_back_meanwhile_is_none(state: pb.State.ValueType) -> None:
    peer = Peer(pb.SealKeyResponse(key=pb.SealedKey(key_id="key-a", state=state)))
    with pytest.raises(KeyNotNeeded):
        await vault_of(peer).seal_upload(UPLOAD)


async def test_what_vault_says_against_an_upload_passes_through() -> None:
    with pytest.raises(RemoteError) as refused:
        await vault_of(Peer(failing("SOURCE_REF_CONFLICT"))).seal_upload(replace(UPLOAD, source_ref="manual/2"))
    assert refused.value.reason == "SOURCE_REF_CONFLICT"


def test_an_upload_does_not_print_its_key() -> None:
    assert "uploaded.key.jwe" not in repr(UPLOAD)


async def test_a_customer_is_forgotten_and_what_vault_refuses_passes_through() -> None:
    erasure = VaultErasure(
        "6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11", "alice", forfeit_unopened=True, reason="asked for it"
    )
    peer = Peer(pb.EraseCustomerResponse(shredded_count=2, kept_count=1), failing("KEYS_UNOPENED", order_ids="order-1"))
    assert await vault_of(peer).erase_customer(erasure) == ErasedKeys(2, 1)
    (request,) = peer.requests
    assert request == pb.EraseCustomerRequest(
        request_id=erasure.request_id, customer_id="alice", forfeit_unopened=True, reason="asked for it"
    )
    with pytest.raises(RemoteError, match="on purpose") as raised:
        await vault_of(peer).erase_customer(erasure)
    assert raised.value.metadata == {"order_ids": "order-1"}


async def test_a_delivery_log_is_told_and_what_is_new_in_it_has_no_word() -> None:
    stored = pb.Delivery(act=pb.DELIVERY_ACT_STORED, time=timestamp(OPENED), caller="vault")
    newer = pb.Delivery(act=cast("Any", 99), time=timestamp(OPENED), device="Firefox on Windows")
    key = pb.SealedKey(order_id="order-1", link_count=1, reveal_count=2)
    log = await vault_of(Peer(pb.GetDeliveryLogResponse(key=key, deliveries=[stored, newer]))).delivery_log(A)
    assert (log.order_id, log.link_count, log.reveal_count) == (ORDER_ID, 1, 2)
    assert [each.act for each in log.deliveries] == [DeliveryAct.STORED, DeliveryAct.UNSPECIFIED]
    assert [(each.time, each.caller, each.device) for each in log.deliveries] == [
        (OPENED, "vault", ""),
        (OPENED, "", "Firefox on Windows"),
    ]
