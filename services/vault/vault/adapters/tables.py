"""Vault's tables, as the migrations made them."""

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, LargeBinary, MetaData, Row, Table, Text, func
from sqlalchemy.dialects.postgresql import ARRAY

from vault.domain.delivery import Act, Delivery
from vault.domain.key import Binding, KeyRecord, KeyState, WrappedDek
from vault.ports import Authorization, Release

_metadata = MetaData()

KEY = Table(
    "sealed_key",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("source_ref", Text, nullable=False),
    Column("seal_request_id", Text, nullable=False),
    Column("order_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("order_digest", Text, nullable=False),
    Column("owner_digest", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("wrapped_dek", LargeBinary),
    Column("kek_version", Text),
    Column("state", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("object_sha256", LargeBinary),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("seal_time", DateTime(timezone=True)),
    Column("open_time", DateTime(timezone=True)),
    Column("revoke_time", DateTime(timezone=True)),
    Column("shred_time", DateTime(timezone=True)),
    Column("other_fingerprints", ARRAY(Text), nullable=False),
    Column("same_key_id", Text),
    Column("expire_time", DateTime(timezone=True)),
    Column("object_delete_time", DateTime(timezone=True)),
    Column("object_retry_time", DateTime(timezone=True)),
    Column("object_tries", Integer, nullable=False),
    Column("link_count", Integer, nullable=False),
    Column("reveal_count", Integer, nullable=False),
)

DELIVERY = Table(
    "delivery",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("act", Text, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("caller", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("device", Text, nullable=False),
)

KNOWN_ACCESS = Table(
    "known_access",
    _metadata,
    Column("owner_digest", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("trait", Text, primary_key=True),
    Column("use_time", DateTime(timezone=True), nullable=False),
)

RELEASE = Table(
    "release_request",
    _metadata,
    Column("request_id", Text, primary_key=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("way", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("audit_sequence", BigInteger, nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


def record_of(row: Row[Any]) -> KeyRecord:
    """Return a key as its row has it."""
    return KeyRecord(
        key_id=row.key_id,
        source_ref=row.source_ref,
        seal_request_id=row.seal_request_id,
        order_id=row.order_id,
        item_id=row.item_id,
        binding=Binding(row.order_digest, row.owner_digest),
        content_type=row.content_type,
        fingerprint=row.fingerprint,
        dek=None if row.wrapped_dek is None else WrappedDek(row.wrapped_dek, row.kek_version),
        state=KeyState(row.state),
        generation=row.generation,
        object_sha256=row.object_sha256,
        create_time=row.create_time,
        seal_time=row.seal_time,
        open_time=row.open_time,
        revoke_time=row.revoke_time,
        shred_time=row.shred_time,
        other_fingerprints=tuple(row.other_fingerprints),
        same_key_id=row.same_key_id,
        expire_time=row.expire_time,
        object_delete_time=row.object_delete_time,
        link_count=row.link_count,
        reveal_count=row.reveal_count,
    )


def delivery_of(row: Row[Any]) -> Delivery:
    """Return a line of a key's log, as its row has it."""
    return Delivery(
        act=Act(row.act),
        time=row.time,
        caller=row.caller,
        request_id=row.request_id,
        reason=row.reason,
        network=row.network,
        device=row.device,
    )


def authorization_of(row: Row[Any]) -> Authorization:
    """Return what is kept of a request, as its row has it."""
    return Authorization(
        request_id=row.request_id,
        request_digest=row.request_digest,
        release=Release(row.way),
        key_id=row.key_id,
        audit_sequence=row.audit_sequence,
        expire_time=row.expire_time,
    )
