"""The log, the persons in it, and the tables of the chassis."""

from alembic import op
from chassis.tables import create_chassis_tables_v1

revision = "0001"
down_revision = None

# The role may read and insert, so that not even a bug in the service changes an entry. The triggers stop whoever has
# more rights and a slip of the hand. Who owns the tables can remove both: that is what published checkpoints are for.
LOG = (
    """
    CREATE TABLE entry (
        sequence       bigint PRIMARY KEY CHECK (sequence >= 0),
        append_id      uuid   NOT NULL UNIQUE,
        request_digest bytea  NOT NULL CHECK (octet_length(request_digest) = 32),
        canonical      text   NOT NULL,
        leaf_hash      bytea  NOT NULL,
        actor_id       text   NOT NULL GENERATED ALWAYS AS (canonical::jsonb #>> '{actor,id}') STORED,
        action         text   NOT NULL GENERATED ALWAYS AS (canonical::jsonb ->> 'action') STORED,
        order_id       text   GENERATED ALWAYS AS (nullif(canonical::jsonb ->> 'order_id', '')) STORED,
        key_id         text   GENERATED ALWAYS AS (nullif(canonical::jsonb ->> 'key_id', '')) STORED,
        CONSTRAINT entry_sequence_is_hashed CHECK (sequence = (canonical::jsonb ->> 'sequence')::bigint),
        CONSTRAINT entry_hash_holds CHECK (leaf_hash = sha256('\\x00'::bytea || convert_to(canonical, 'UTF8')))
    )
    """,
    "CREATE INDEX entry_by_order ON entry (order_id, sequence) WHERE order_id IS NOT NULL",
    "CREATE INDEX entry_by_key ON entry (key_id, sequence) WHERE key_id IS NOT NULL",
    "CREATE INDEX entry_by_action ON entry (action, sequence)",
    "CREATE INDEX entry_by_actor ON entry (actor_id, sequence)",
    """
    CREATE TABLE person (
        pseudonym      text        PRIMARY KEY,
        lookup         bytea       NOT NULL UNIQUE CHECK (octet_length(lookup) = 32),
        secret_version text        NOT NULL,
        wrapped_key    bytea       NOT NULL CHECK (octet_length(wrapped_key) = 60),
        create_time    timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the log is append-only' USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    "CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE ON entry FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER log_is_final BEFORE TRUNCATE ON entry FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "GRANT SELECT, INSERT ON entry, person TO audit_service",
)


def upgrade() -> None:
    for statement in (*create_chassis_tables_v1("audit_service"), *LOG):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a log that is dropped is a log that was changed")
