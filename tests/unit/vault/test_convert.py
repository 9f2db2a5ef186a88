import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from chassis.errors import InvalidRequest
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb
from vault.convert import link_to_proto, release_request_from_proto, seal_request_from_proto, sealed_key_to_proto
from vault.domain.key import CONTENT_TYPES, MOST_KEY_BYTES, KeyState
from vault.ports import Viewer
from vault.releasing import DownloadLink

from tests.unit.vault.fakes import GAME_KEY, Recipient, World

REQUEST_ID = str(uuid.uuid5(uuid.NAMESPACE_URL, "request"))
RECIPIENT = Recipient()


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
    request = seal_request_from_proto(seal_message())
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
        seal_request_from_proto(seal_message(**{field: value}))
    assert faulty_fields(raised.value) == [field]
    assert len(raised.value.message) < 300


def test_every_fault_of_a_request_to_seal_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as raised:
        seal_request_from_proto(pb.SealKeyRequest())
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
    assert len(seal_request_from_proto(message).plaintext) == MOST_KEY_BYTES


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
    assert record.dek.data not in message.SerializeToString()


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
