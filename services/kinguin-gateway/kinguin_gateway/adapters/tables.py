"""The tables of kinguin-gateway; the migration that makes them is the one that says what holds for them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    func,
)

_metadata = MetaData()
_moment = DateTime(timezone=True)

PURCHASE = Table(
    "purchase",
    _metadata,
    Column("external_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("order_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("product_id", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("max_unit_cents", BigInteger, nullable=False),
    Column("key_type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("send_deadline", _moment, nullable=False),
    Column("doubt", Text, nullable=False, server_default=""),
    Column("refusal_kind", Text, nullable=False, server_default=""),
    Column("refusal_detail", Text, nullable=False, server_default=""),
    Column("refusal_trace", Text, nullable=False, server_default=""),
    Column("supplier_order_id", Text, unique=True),
    Column("supplier_order_state", Text),
    Column("product_name", Text, nullable=False, server_default=""),
    Column("charged_cents", BigInteger),
    Column("delivered_count", Integer, nullable=False, server_default="0"),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("lease_end", _moment),
    Column("next_look_time", _moment),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
    Column("update_time", _moment, nullable=False, server_default=func.now()),
)

SEALED_KEY = Table(
    "sealed_key",
    _metadata,
    Column("external_id", Text, primary_key=True),
    Column("supplier_key_id", Text, primary_key=True),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("seal_time", _moment, nullable=False, server_default=func.now()),
)
