"""The tables of kinguin-gateway; the migrations that make them say what holds for them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
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
    Column("park_time", _moment),
    Column("verify_time", _moment),
    Column("release_time", _moment),
    Column("canceled_count", Integer, nullable=False, server_default="0"),
    Column("withdraw_time", _moment),
    Column("refunded_cents", BigInteger),
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
    Column("state", Text, nullable=False, server_default="DELIVERED"),
)

KEY_RETURN = Table(
    "key_return",
    _metadata,
    Column("supplier_order_id", Text, primary_key=True),
    Column("external_id", Text, nullable=False),
    Column("surplus", Boolean, nullable=False),
    Column("request_id", Text, unique=True),
    Column("state", Text, nullable=False),
    Column("returned_count", Integer, nullable=False, server_default="0"),
    Column("refunded_count", Integer, nullable=False, server_default="0"),
    Column("refusal_kind", Text, nullable=False, server_default=""),
    Column("refusal_detail", Text, nullable=False, server_default=""),
    Column("refusal_trace", Text, nullable=False, server_default=""),
    Column("sent_count", Integer, nullable=False, server_default="0"),
    Column("looks", Integer, nullable=False, server_default="0"),
    Column("lease_end", _moment),
    Column("next_look_time", _moment),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
    Column("update_time", _moment, nullable=False, server_default=func.now()),
    Column("charged_cents", BigInteger),
    Column("refunded_cents", BigInteger),
)

BUYING = Table(
    "buying",
    _metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change_time", _moment, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("doubt_end", _moment, nullable=False),
    Column("caution_end", _moment, nullable=False),
)

CALL_SCHEDULE = Table(
    "call_schedule",
    _metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("next_time", _moment, nullable=False),
)

WEBHOOK = Table(
    "webhook",
    _metadata,
    Column("webhook_id", Uuid, primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("event_name", Text, nullable=False),
    Column("supplier_order_id", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("product_id", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("told_time", _moment),
    Column("receive_time", _moment, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("replay_time", _moment),
    Column("body_sha256", LargeBinary, nullable=False),
)

PRODUCT = Table(
    "product",
    _metadata,
    Column("product_id", Text, primary_key=True),
    Column("price_cents", BigInteger),
    Column("available", Integer, nullable=False, server_default="0"),
    Column("told_time", _moment),
    Column("read_time", _moment),
    Column("lease_end", _moment),
    Column("next_read_time", _moment),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
)

BALANCE_READING = Table(
    "balance_reading",
    _metadata,
    Column("read_time", _moment, primary_key=True),
    Column("balance_cents", BigInteger, nullable=False),
)

TOP_UP = Table(
    "top_up",
    _metadata,
    Column("top_up_id", Uuid, primary_key=True),
    Column("amount_cents", BigInteger, nullable=False),
    Column("top_up_time", _moment, nullable=False),
    Column("reference", Text, nullable=False),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
)
