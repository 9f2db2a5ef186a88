"""The log's tables. Search columns are generated from the canonical entry, so that they cannot say otherwise."""

from sqlalchemy import BigInteger, Column, Computed, DateTime, LargeBinary, MetaData, Table, Text, Uuid

_metadata = MetaData()
_generated = "from the canonical entry; see the migration"

ENTRY = Table(
    "entry",
    _metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("append_id", Uuid(as_uuid=False), nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("canonical", Text, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("actor_id", Text, Computed(_generated)),
    Column("action", Text, Computed(_generated)),
    Column("order_id", Text, Computed(_generated)),
    Column("key_id", Text, Computed(_generated)),
)

PERSON = Table(
    "person",
    _metadata,
    Column("pseudonym", Text, primary_key=True),
    Column("lookup", LargeBinary, nullable=False),
    Column("secret_version", Text, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
)

FORGOTTEN = Table(
    "forgotten",
    _metadata,
    Column("lookup", LargeBinary, primary_key=True),
    Column("forget_time", DateTime(timezone=True), nullable=False),
)
