"""Fulfillment's tables, as the queries name them. Their truth is in the migrations."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Identity, Integer, LargeBinary, MetaData, Table, Text

_metadata = MetaData()
_moment = DateTime(timezone=True)

ORDER = Table(
    "customer_order",
    _metadata,
    Column("order_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("locale", Text, nullable=False),
    Column("country_code", Text, nullable=False),
    Column("total_currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("paid_currency", Text),
    Column("paid_minor", BigInteger),
    Column("digest", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("create_time", _moment, nullable=False),
    Column("update_time", _moment, nullable=False),
    Column("pay_time", _moment),
    Column("mail_time", _moment),
)

ITEM = Table(
    "order_item",
    _metadata,
    Column("order_id", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("product_id", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("max_unit_price", BigInteger, nullable=False),
    Column("key_type", Text, nullable=False),
    Column("product_name", Text, nullable=False),
)

PAYMENT = Table(
    "payment",
    _metadata,
    Column("provider", Text, primary_key=True),
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("minor", BigInteger, nullable=False),
    Column("confirm_time", _moment, nullable=False),
)

PURCHASE = Table(
    "purchase",
    _metadata,
    Column("external_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("chunk", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state_time", _moment, nullable=False),
    Column("supplier_order_id", Text, nullable=False),
    Column("place_time", _moment),
    Column("refusal", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("run_at", _moment),
    Column("lease_until", _moment),
    Column("hastened", Boolean, nullable=False),
    Column("park_time", _moment),
)

KEY = Table(
    "order_key",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("position", BigInteger, Identity(always=True)),
    Column("ready_time", _moment, nullable=False),
    Column("open_time", _moment),
)

MAIL = Table(
    "mail",
    _metadata,
    Column("order_id", Text, primary_key=True),
    Column("run_at", _moment),
    Column("tries", Integer, nullable=False),
    Column("send_time", _moment),
    Column("failure", Text, nullable=False),
)
