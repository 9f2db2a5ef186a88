"""What was done with each key, how keys end by themselves, and by what their owners are known.

Replicas of before this migration write no delivery log, count no release and limit none; what they shred is found by
the sweep, whose work is told by what is missing: a destroyed key without the time at which its object was deleted.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    ALTER TABLE sealed_key
        ADD COLUMN expire_time timestamptz,
        ADD COLUMN object_delete_time timestamptz,
        ADD COLUMN object_retry_time timestamptz,
        ADD COLUMN object_tries integer NOT NULL DEFAULT 0,
        ADD COLUMN link_count integer NOT NULL DEFAULT 0,
        ADD COLUMN reveal_count integer NOT NULL DEFAULT 0,
        ADD CONSTRAINT only_shredded_keys_end
            CHECK (state = 'SHREDDED' OR (expire_time IS NULL AND object_delete_time IS NULL))
    """,
    "CREATE INDEX sealed_key_by_owner ON sealed_key (owner_digest, key_id)",
    """
    CREATE INDEX sealed_key_kept_opened ON sealed_key (open_time)
        WHERE open_time IS NOT NULL AND state <> 'SHREDDED'
    """,
    """
    CREATE INDEX sealed_key_kept_unopened ON sealed_key (greatest(create_time, revoke_time))
        WHERE open_time IS NULL AND state <> 'SHREDDED'
    """,
    """
    CREATE INDEX sealed_key_objects_left ON sealed_key (object_retry_time NULLS FIRST)
        WHERE state = 'SHREDDED' AND object_delete_time IS NULL
    """,
    """
    CREATE TABLE delivery (
        key_id     text        NOT NULL REFERENCES sealed_key,
        position   bigint      GENERATED ALWAYS AS IDENTITY,
        act        text        NOT NULL CHECK (act IN ('LINK_ISSUED', 'REVEALED', 'REVOKED', 'EXPIRED', 'SHREDDED')),
        time       timestamptz NOT NULL,
        caller     text        NOT NULL,
        request_id text        NOT NULL,
        reason     text        NOT NULL,
        network    text        NOT NULL,
        device     text        NOT NULL,
        PRIMARY KEY (key_id, position),
        UNIQUE (key_id, act, request_id)
    )
    """,
    """
    CREATE TABLE known_access (
        owner_digest text        NOT NULL,
        kind         text        NOT NULL CHECK (kind IN ('country', 'network', 'device')),
        trait        text        NOT NULL,
        use_time     timestamptz NOT NULL,
        PRIMARY KEY (owner_digest, kind, trait)
    )
    """,
    "CREATE INDEX known_access_by_age ON known_access (use_time)",
    # Of a log only the oldest releases go, and what is personal of an erased customer.
    "GRANT SELECT, INSERT, DELETE, UPDATE (network, device) ON delivery TO vault_service",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON known_access TO vault_service",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping the delivery log would lose what was done with each key")
