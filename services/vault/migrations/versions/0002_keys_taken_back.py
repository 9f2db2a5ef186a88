"""Keys that are revoked, shredded or marked as opened, and listing by time.

A key counts as opened from the moment its row says so. Replicas of before this migration do not write that yet, and
may run beside it: what they authorized so far counts as opened (perhaps more than was, never less), and what they hand
over from now on is marked by a trigger, in the transaction in which they announce it. The trigger stays: it holds
whoever announces an opening to the mark, and lets nobody announce one of a revoked key.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """
    ALTER TABLE sealed_key
        ADD COLUMN open_time timestamptz,
        ADD COLUMN revoke_time timestamptz,
        ADD COLUMN shred_time timestamptz,
        ALTER COLUMN wrapped_dek DROP NOT NULL,
        ALTER COLUMN kek_version DROP NOT NULL,
        DROP CONSTRAINT sealed_key_state_check,
        DROP CONSTRAINT sealed_means_confirmed,
        ADD CONSTRAINT sealed_key_state_check
            CHECK (state IN ('SEALING', 'SEALED', 'HELD', 'REVOKED', 'SHREDDED')),
        ADD CONSTRAINT sealed_means_confirmed
            CHECK (state NOT IN ('SEALED', 'HELD') OR (object_sha256 IS NOT NULL AND seal_time IS NOT NULL)),
        ADD CONSTRAINT revoked_means_unopened
            CHECK (state <> 'REVOKED' OR (open_time IS NULL AND revoke_time IS NOT NULL)),
        ADD CONSTRAINT shredded_means_without_dek
            CHECK ((state = 'SHREDDED') = (wrapped_dek IS NULL)
               AND (wrapped_dek IS NULL) = (kek_version IS NULL)
               AND (state = 'SHREDDED') = (shred_time IS NOT NULL))
    """,
    "CREATE INDEX sealed_key_by_time ON sealed_key (create_time, key_id)",
    """
    CREATE FUNCTION mark_opened() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sealed_key SET open_time = now()
            WHERE key_id = NEW.headers ->> 'ce-subject' AND open_time IS NULL;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER opening_is_marked AFTER INSERT ON outbox FOR EACH ROW
        WHEN (NEW.subject = 'vault.key.opened') EXECUTE FUNCTION mark_opened()
    """,
    """
    UPDATE sealed_key SET open_time = first.time
        FROM (SELECT key_id, min(create_time) AS time FROM release_request GROUP BY key_id) AS first
        WHERE sealed_key.key_id = first.key_id
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("forgetting which keys were opened or revoked would let them be opened or given back")
