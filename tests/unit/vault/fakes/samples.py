"""Who and what the tests of vault are about, and requests as its callers make them."""

import base64
import uuid
from datetime import UTC, datetime, timedelta

from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from vault.domain.key import KeyRecord, WrappedDek
from vault.domain.retention import Retention
from vault.ports import Viewer, Wish
from vault.releasing import request_digest
from vault.sealing import SealRequest
from vault.taking_back import RevokeRequest, ShredRequest

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Viewer("alice", "alice@example.com", "192.0.2.7", "Browser/1.0")
BOB = Viewer("bob")
GAME_KEY = b"AAAAA-BBBBB-CCCCC"
RETENTION = Retention(opened=timedelta(days=30), unopened=timedelta(days=90))
MOST_PER_HOUR = 5


def a_secret(seed: int) -> str:
    return base64.urlsafe_b64encode(bytes((seed * 7 + number * 37) % 256 for number in range(32))).decode().rstrip("=")


def a_keyring(*versions: str) -> Keyring:
    return Keyring.parse(",".join(f"{version}:{a_secret(int(version[1:]))}" for version in versions or ("v1",)))


def wrapped_dek(record: KeyRecord) -> WrappedDek:
    assert record.dek is not None, "the key was shredded"
    return record.dek


def a_wish(request_id: str = "", caller: str = "fulfillment", reason: str = "the order was refunded") -> Wish:
    return Wish(request_id or str(uuid.uuid4()), caller, reason)


def a_revocation(*key_ids: str, order_id: str = "order-1", request_id: str = "") -> RevokeRequest:
    digest = request_digest(b"revoke", order_id.encode(), *(key_id.encode() for key_id in key_ids))
    return RevokeRequest(a_wish(request_id), digest, order_id, key_ids)


def a_shredding(key_id: str, order_id: str = "order-1", request_id: str = "") -> ShredRequest:
    return ShredRequest(
        a_wish(request_id), request_digest(b"shred", order_id.encode(), key_id.encode()), order_id, key_id
    )


def a_seal(plaintext: bytes = GAME_KEY, **changes: str) -> SealRequest:
    source_ref = changes.get("source_ref", "kinguin:1:1")
    return SealRequest(
        request_id=changes.get("request_id", str(uuid.uuid5(uuid.NAMESPACE_URL, source_ref))),
        source_ref=source_ref,
        order_id=changes.get("order_id", "order-1"),
        item_id=changes.get("item_id", "item-1"),
        customer_id=changes.get("customer_id", "alice"),
        content_type=changes.get("content_type", "text/plain"),
        plaintext=SecretBytes(plaintext),
    )
