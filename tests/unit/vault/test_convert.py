import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.errors import InvalidRequest
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from vault.convert import (
    MOST_KEYS,
    key_filter_from_proto,
    key_id_from_proto,
    key_page_to_proto,
    link_to_proto,
    release_request_from_proto,
    revoke_request_from_proto,
    seal_request_from_proto,
    sealed_key_to_proto,
    shred_request_from_proto,
)
from vault.domain.key import CONTENT_TYPES, MOST_KEY_BYTES, KeyState
from vault.errors import UploadMismatch, UploadUnreadable
from vault.listing import KeyPage
from vault.ports import KeyFilter, Viewer, Wish
from vault.releasing import DownloadLink
from vault.sealing import SealRequest
from vault.uploading import UploadKeys

from tests.unit.vault.fakes import GAME_KEY, NOON, Recipient, World, a_keyring
from tests.unit.vault.jose_by_hand import write_agreed

REQUEST_ID = str(uuid.uuid5(uuid.NAMESPACE_URL, "request"))
RECIPIENT = Recipient()
UPLOAD_KEYS = UploadKeys(a_keyring("v1"))


def seal_message(**changes: Any) -> pb.SealKeyRequest:
    good = {
        "request_id": REQUEST_ID,
        "source_ref": "kinguin:PHS84FJAG5U:5f5ec1ed7c5b24000125c36a",
        "order_id": "order-1",
        "item_id": "item-1",
        "customer_id": "auth0|alice",
        "content_type": "text/plain",
        "plaintext_key": GAME_KEY,
    }
    return pb.SealKeyRequest(**(good | changes))


def read_seal(message: pb.SealKeyRequest) -> SealRequest:
    return seal_request_from_proto(message, UPLOAD_KEYS)


def upload_message(content: bytes = GAME_KEY, **changes: Any) -> pb.SealKeyRequest:
    header = {"kid": "v1", "order_id": "order-1", "item_id": "item-1", "request_id": REQUEST_ID}
    token = write_agreed(header, content, json.loads(UPLOAD_KEYS.public_jwk()))
    return seal_message(**({"plaintext_key": b"", "key_jwe": token} | changes))


def release_message(**changes: Any) -> pb.RevealKeyRequest:
    actor: dict[str, Any] = {
        "type": actor_pb2.ACTOR_TYPE_CUSTOMER,
        "id": "alice",
        "email": "alice@example.com",
        "ip_address": "192.0.2.7",
        "user_agent": "Browser/1.0",
    }
    for name in [name for name in changes if name.startswith("actor_")]:
        actor[name.removeprefix("actor_")] = changes.pop(name)
    good = {"request_id": REQUEST_ID, "order_id": "order-1", "key_id": "a" * 32, "recipient_jwk": RECIPIENT.jwk}
    return pb.RevealKeyRequest(actor=actor_pb2.Actor(**actor), **(good | changes))


def faulty_fields(error: InvalidRequest) -> list[str]:
    return [fault.field for fault in error.field_violations]


def test_a_good_request_to_seal_is_read_whole() -> None:
    request = read_seal(seal_message())
    assert request.plaintext.expose() == GAME_KEY
    assert (request.request_id, request.source_ref) == (REQUEST_ID, seal_message().source_ref)
    assert (request.order_id, request.item_id, request.customer_id) == ("order-1", "item-1", "auth0|alice")
    assert request.content_type == "text/plain"
    assert GAME_KEY.decode() not in repr(request)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""),
        ("request_id", "7"),
        ("source_ref", ""),
        ("source_ref", "x" * 256),
        ("source_ref", "kinguin:\x00"),
        ("source_ref", "kinguin:\n"),
        ("order_id", ""),
        ("order_id", "order/1"),
        ("order_id", "x" * 65),
        ("item_id", ""),
        ("item_id", "ítem"),
        ("customer_id", ""),
        ("customer_id", "x" * 256),
        ("customer_id", "a\x00"),
        ("content_type", ""),
        ("content_type", "text/html"),
        ("content_type", "TEXT/PLAIN"),
        ("content_type", "text/plain;owner=bob"),
        ("plaintext_key", b""),
        ("plaintext_key", b"x" * (MOST_KEY_BYTES + 1)),
        ("plaintext_key", b"\xff\xfe"),
    ],
)
def test_a_fault_in_a_request_to_seal_names_its_field_and_no_value(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_seal(seal_message(**{field: value}))
    assert faulty_fields(raised.value) == [field]
    assert len(raised.value.message) < 300


def test_every_fault_of_a_request_to_seal_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_seal(pb.SealKeyRequest())
    assert faulty_fields(raised.value) == [
        "request_id",
        "source_ref",
        "order_id",
        "item_id",
        "customer_id",
        "content_type",
        "plaintext_key",
    ]


@pytest.mark.parametrize("content_type", sorted(CONTENT_TYPES - {"text/plain"}))
def test_a_picture_may_be_any_bytes_up_to_the_limit(content_type: str) -> None:
    message = seal_message(content_type=content_type, plaintext_key=b"\xff" * MOST_KEY_BYTES)
    assert len(read_seal(message).plaintext) == MOST_KEY_BYTES


def test_an_uploaded_key_is_read_as_one_that_came_in_plain() -> None:
    uploaded = read_seal(upload_message())
    assert uploaded.plaintext.expose() == GAME_KEY
    assert GAME_KEY.decode() not in repr(uploaded)
    assert uploaded == read_seal(seal_message())


def test_a_key_comes_in_one_way_only() -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_seal(upload_message(plaintext_key=GAME_KEY))
    assert faulty_fields(raised.value) == ["key_jwe"]
    with pytest.raises(InvalidRequest) as raised:
        read_seal(seal_message(plaintext_key=b""))
    assert faulty_fields(raised.value) == ["plaintext_key"]


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("text/plain", b""),
        ("text/plain", b"\xff\xfe"),
        ("text/plain", b"x" * (MOST_KEY_BYTES + 1)),
        ("image/png", b"\x89PNG"),
        ("image/png", b"GIF89a"),
        ("image/jpeg", b"\x89PNG\r\n\x1a\n"),
        ("image/gif", b"\xff\xd8\xff"),
        ("image/gif", b"GIF88a"),
        ("image/gif", b""),
    ],
)
def test_an_upload_that_is_not_what_its_type_says_is_refused(content_type: str, content: bytes) -> None:
    with pytest.raises((InvalidRequest, UploadUnreadable)) as raised:
        read_seal(upload_message(content, content_type=content_type))
    assert {fault.field for fault in raised.value.field_violations} == {"key_jwe"}


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("image/png", b"\x89PNG\r\n\x1a\n..."),
        ("image/gif", b"GIF87a..."),
        ("image/gif", b"GIF89a..."),
        ("image/jpeg", b"\xff\xd8\xff\xe0" + bytes(MOST_KEY_BYTES - 4)),
        ("text/plain", "clé".encode()),
    ],
)
def test_an_upload_that_is_what_its_type_says_is_taken(content_type: str, content: bytes) -> None:
    assert read_seal(upload_message(content, content_type=content_type)).plaintext.expose() == content


@pytest.mark.parametrize("field", ["order_id", "item_id", "request_id"])
def test_an_upload_for_another_is_refused_by_name(field: str) -> None:
    changes: dict[str, Any] = {field: str(uuid.uuid4())}
    with pytest.raises(UploadMismatch) as raised:
        read_seal(upload_message(**changes))
    assert [fault.field for fault in raised.value.field_violations] == [field]


def test_a_fault_elsewhere_is_told_before_an_upload_is_opened() -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_seal(upload_message(key_jwe="nonsense", source_ref=""))
    assert faulty_fields(raised.value) == ["source_ref"]


def revoke_message(**changes: Any) -> pb.RevokeKeysRequest:
    good = {"request_id": REQUEST_ID, "order_id": "order-1", "key_ids": ["b", "a", "b"], "reason": "refunded"}
    return pb.RevokeKeysRequest(**(good | changes))


def shred_message(**changes: Any) -> pb.ShredKeyRequest:
    good = {"request_id": REQUEST_ID, "order_id": "order-1", "key_id": "a", "reason": "given back"}
    return pb.ShredKeyRequest(**(good | changes))


def test_good_requests_to_take_back_are_read_whole() -> None:
    revoking = revoke_request_from_proto(revoke_message(), "fulfillment")
    assert revoking.wish == Wish(REQUEST_ID, "fulfillment", "refunded")
    assert (revoking.order_id, revoking.key_ids) == ("order-1", ("b", "a"))
    shredding = shred_request_from_proto(shred_message(), "fulfillment")
    assert shredding.wish == Wish(REQUEST_ID, "fulfillment", "given back")
    assert (shredding.order_id, shredding.key_id) == ("order-1", "a")
    digests = {revoking.digest, shredding.digest}
    digests |= {revoke_request_from_proto(revoke_message(key_ids=["a", "b"]), "fulfillment").digest}
    digests |= {shred_request_from_proto(shred_message(reason="other"), "fulfillment").digest}
    assert len(digests) == 4
    assert len(revoke_request_from_proto(revoke_message(key_ids=map(str, range(MOST_KEYS))), "x").key_ids) == MOST_KEYS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": "7"}, "request_id"),
        ({"order_id": ""}, "order_id"),
        ({"key_ids": []}, "key_ids"),
        ({"key_ids": ["a"] * (MOST_KEYS + 1)}, "key_ids"),
        ({"key_ids": ["a", ""]}, "key_ids[1]"),
        ({"key_ids": ["a,b"]}, "key_ids[0]"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 256}, "reason"),
        ({"reason": "x\x00"}, "reason"),
    ],
)
def test_a_fault_in_a_request_to_revoke_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        revoke_request_from_proto(revoke_message(**changes), "fulfillment")
    assert faulty_fields(raised.value) == [field]


def test_every_fault_of_a_request_to_shred_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        shred_request_from_proto(pb.ShredKeyRequest(), "fulfillment")
    assert faulty_fields(raised.value) == ["request_id", "reason", "order_id", "key_id"]


def test_what_is_read_and_listed_is_checked() -> None:
    assert key_id_from_proto(pb.GetKeyRequest(key_id="a")) == "a"
    for key_id in ("", "a/b"):
        with pytest.raises(InvalidRequest):
            key_id_from_proto(pb.GetKeyRequest(key_id=key_id))
    assert key_filter_from_proto(pb.ListKeysRequest()) == KeyFilter()
    whole = pb.ListKeysRequest(order_id="order-1")
    whole.start_time.FromDatetime(NOON)
    whole.end_time.FromDatetime(NOON + timedelta(seconds=1))
    assert key_filter_from_proto(whole) == KeyFilter("order-1", NOON, NOON + timedelta(seconds=1))
    whole.end_time.FromDatetime(NOON)
    whole.order_id = "a/b"
    with pytest.raises(InvalidRequest) as raised:
        key_filter_from_proto(whole)
    assert faulty_fields(raised.value) == ["order_id", "end_time"]


def test_a_good_request_to_open_is_read_whole() -> None:
    request = release_request_from_proto(release_message())
    assert (request.request_id, request.order_id, request.key_id) == (REQUEST_ID, "order-1", "a" * 32)
    assert request.viewer == Viewer("alice", "alice@example.com", "192.0.2.7", "Browser/1.0")
    assert request.recipient.as_dict(private=False)["x"] == json.loads(RECIPIENT.jwk)["x"]
    assert len(request.digest) == 32


def test_the_digest_is_of_all_that_makes_the_answer_and_of_nothing_else() -> None:
    link = pb.CreateDownloadLinkRequest.FromString(release_message().SerializeToString())
    same = (
        release_message(),
        release_message(actor_ip_address="198.51.100.9"),
        release_message(actor_user_agent="Other/2.0"),
        release_message(actor_email=""),
        release_message(request_id=str(uuid.uuid4())),
    )
    others = (
        link,
        release_message(order_id="order-2"),
        release_message(key_id="b" * 32),
        release_message(actor_id="bob"),
        release_message(recipient_jwk=Recipient().jwk),
        release_message(recipient_jwk=RECIPIENT.jwk + b" "),
        release_message(order_id="order-1a", key_id="a" * 31),
    )
    digests = {release_request_from_proto(message).digest for message in same}
    assert len(digests) == 1
    assert len(digests | {release_request_from_proto(message).digest for message in others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": "7"}, "request_id"),
        ({"order_id": ""}, "order_id"),
        ({"order_id": "../1"}, "order_id"),
        ({"key_id": ""}, "key_id"),
        ({"key_id": "keys/1"}, "key_id"),
        ({"actor_type": actor_pb2.ACTOR_TYPE_ADMIN}, "actor.type"),
        ({"actor_type": actor_pb2.ACTOR_TYPE_SERVICE}, "actor.type"),
        ({"actor_type": actor_pb2.ACTOR_TYPE_UNSPECIFIED}, "actor.type"),
        ({"actor_id": ""}, "actor.id"),
        ({"actor_id": "x" * 256}, "actor.id"),
        ({"actor_id": "alice\n"}, "actor.id"),
        ({"actor_email": "x" * 321}, "actor.email"),
        ({"actor_ip_address": "1" * 65}, "actor.ip_address"),
        ({"actor_user_agent": "x" * 513}, "actor.user_agent"),
        ({"recipient_jwk": b""}, "recipient_jwk"),
        ({"recipient_jwk": b"{}"}, "recipient_jwk"),
    ],
)
def test_a_fault_in_a_request_to_open_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        release_request_from_proto(release_message(**changes))
    assert faulty_fields(raised.value) == [field]


def test_every_fault_of_a_request_to_open_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        release_request_from_proto(pb.CreateDownloadLinkRequest())
    assert faulty_fields(raised.value) == [
        "request_id",
        "order_id",
        "key_id",
        "actor.type",
        "actor.id",
        "recipient_jwk",
    ]


def test_a_private_key_that_came_along_is_not_repeated_in_the_error() -> None:
    leaked = json.dumps({**json.loads(RECIPIENT.jwk), "d": "very-private"}).encode()
    with pytest.raises(InvalidRequest) as raised:
        release_request_from_proto(release_message(recipient_jwk=leaked))
    assert "very-private" not in str(raised.value)
    assert "public part only" in raised.value.message


async def test_a_sealed_key_is_rendered_without_anything_that_opens_it(world: World) -> None:
    record = await world.sealed()
    message = sealed_key_to_proto(record)
    assert message.state == pb.STATE_SEALED
    assert (message.key_id, message.object_name) == (record.key_id, f"keys/{record.key_id}")
    assert message.object_sha256 == record.object_sha256
    assert message.seal_time.ToDatetime(UTC) == record.seal_time
    assert record.dek is not None
    assert record.dek.data not in message.SerializeToString()
    assert (message.order_id, message.item_id, message.source_ref) == ("order-1", "item-1", "kinguin:1:1")
    assert message.create_time.ToDatetime(UTC) == NOON
    for field in ("open_time", "revoke_time", "shred_time"):
        assert not message.HasField(field)
        changed: dict[str, Any] = {field: NOON + timedelta(hours=1)}
        later = sealed_key_to_proto(replace(record, **changed))
        assert getattr(later, field).ToDatetime(UTC) == NOON + timedelta(hours=1)
    page = key_page_to_proto(KeyPage([record, record], "more"))
    assert (list(page.keys), page.next_page_token) == ([message, message], "more")


async def test_every_state_has_its_number_and_what_is_not_known_yet_stays_empty(world: World) -> None:
    record = await world.sealed()
    for state in KeyState:
        rendered = sealed_key_to_proto(type(record)(**{**_fields(record), "state": state}))
        assert pb.State.Name(rendered.state) == f"STATE_{state.value}"
    waiting = sealed_key_to_proto(type(record)(**{**_fields(record), "object_sha256": None, "seal_time": None}))
    assert waiting.object_sha256 == b""
    assert not waiting.HasField("seal_time")


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_a_link_is_rendered_whole() -> None:
    moment = datetime(2026, 1, 2, 12, 15, tzinfo=UTC)
    message = link_to_proto(DownloadLink("https://store.example/x", moment, "jwe", b"\x01" * 32))
    assert (message.url, message.content_key_jwe, message.object_sha256) == (
        "https://store.example/x",
        "jwe",
        b"\x01" * 32,
    )
    assert message.expire_time.ToDatetime(UTC) == moment
