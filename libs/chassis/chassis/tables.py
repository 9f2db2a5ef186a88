"""The tables that every service with events or mutations has in its own database, and the SQL that makes them.

`outbox`: events committed with the state they tell of. `inbox`: events whose effect is committed. `dead_letter`:
events given up, with the reason. `request_log`: answers already given, by request id. `told_settings`: one row, the
settings that the audit log was told last.
"""

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
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_moment = DateTime(timezone=True)

OUTBOX = Table(
    "outbox",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("stream", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
    Column("publish_time", _moment),
)

OUTBOX_STREAM = Table(
    "outbox_stream",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("create_time", _moment, nullable=False),
)

INBOX = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("receive_time", _moment, nullable=False, server_default=func.now()),
)

DEAD_LETTER = Table(
    "dead_letter",
    metadata,
    Column("dead_letter_id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
    Column("replay_time", _moment),
)

REQUEST_LOG = Table(
    "request_log",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("method", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("create_time", _moment, nullable=False, server_default=func.now()),
)

TOLD_SETTINGS = Table(
    "told_settings",
    metadata,
    Column("single", Boolean, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("tell_time", _moment),
)

# A migration is history: this text is never changed, a later need gets a function of its own beside it.
_CREATE_V1 = (
    """
    CREATE TABLE outbox (
        position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id     text        NOT NULL UNIQUE,
        stream       text        NOT NULL,
        subject      text        NOT NULL,
        headers      jsonb       NOT NULL,
        data         bytea       NOT NULL,
        create_time  timestamptz NOT NULL DEFAULT now(),
        publish_time timestamptz
    )
    """,
    "CREATE INDEX outbox_waiting ON outbox (position) WHERE publish_time IS NULL",
    "CREATE INDEX outbox_by_age ON outbox (create_time)",
    "CREATE TABLE outbox_stream (stream text PRIMARY KEY, create_time timestamptz NOT NULL)",
    """
    CREATE TABLE inbox (
        consumer     text        NOT NULL,
        event_id     text        NOT NULL,
        receive_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, event_id)
    )
    """,
    "CREATE INDEX inbox_by_age ON inbox (receive_time)",
    """
    CREATE TABLE dead_letter (
        dead_letter_id uuid        PRIMARY KEY,
        consumer       text        NOT NULL,
        event_id       text        NOT NULL,
        subject        text        NOT NULL,
        headers        jsonb       NOT NULL,
        data           bytea       NOT NULL,
        reason         text        NOT NULL,
        deliveries     integer     NOT NULL,
        create_time    timestamptz NOT NULL DEFAULT now(),
        replay_time    timestamptz,
        UNIQUE (consumer, event_id)
    )
    """,
    """
    CREATE TABLE request_log (
        request_id  text        PRIMARY KEY,
        method      text        NOT NULL,
        digest      bytea       NOT NULL,
        response    bytea       NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX request_log_by_age ON request_log (create_time)",
)


def create_chassis_tables_v1(role: str) -> list[str]:
    """Return the statements that make the tables and let the service's role use them, for a migration to execute."""
    grants = [
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}"
        for table in ("outbox", "outbox_stream", "inbox", "dead_letter", "request_log")
    ]
    return [*_CREATE_V1, *grants]


def create_settings_table_v1(role: str) -> list[str]:
    """Return the statements that make `told_settings` with its one row, for a migration to execute."""
    return [
        """
        CREATE TABLE told_settings (
            single    boolean     PRIMARY KEY CHECK (single),
            revision  bigint      NOT NULL,
            settings  jsonb       NOT NULL,
            tell_time timestamptz
        )
        """,
        "INSERT INTO told_settings (single, revision, settings) VALUES (true, 0, '{}')",
        f"GRANT SELECT, UPDATE ON told_settings TO {role}",
    ]
