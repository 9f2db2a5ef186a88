"""Sealed keys, the requests that released them, and the tables of the chassis."""

from alembic import op
from chassis.tables import create_chassis_tables_v1

revision = "0001"
down_revision = None

KEYS = (
    """
    CREATE TABLE sealed_key (
        key_id          text        PRIMARY KEY,
        source_ref      text        NOT NULL UNIQUE,
        seal_request_id text        NOT NULL UNIQUE,
        order_id        text        NOT NULL,
        item_id         text        NOT NULL,
        order_digest    text        NOT NULL,
        owner_digest    text        NOT NULL,
        content_type    text        NOT NULL,
        fingerprint     text        NOT NULL,
        wrapped_dek     bytea       NOT NULL CHECK (octet_length(wrapped_dek) = 60),
        kek_version     text        NOT NULL,
        state           text        NOT NULL CHECK (state IN ('SEALING', 'SEALED', 'HELD')),
        generation      integer     NOT NULL DEFAULT 0 CHECK (generation >= 0),
        object_sha256   bytea       CHECK (octet_length(object_sha256) = 32),
        create_time     timestamptz NOT NULL DEFAULT now(),
        seal_time       timestamptz,
        CONSTRAINT sealed_means_confirmed
            CHECK (state = 'SEALING' OR (object_sha256 IS NOT NULL AND seal_time IS NOT NULL))
    )
    """,
    "CREATE INDEX sealed_key_by_order ON sealed_key (order_id)",
    "CREATE INDEX sealed_key_by_fingerprint ON sealed_key (fingerprint)",
    "CREATE INDEX sealed_key_by_kek ON sealed_key (kek_version, key_id)",
    """
    CREATE TABLE release_request (
        request_id     text        PRIMARY KEY,
        request_digest bytea       NOT NULL CHECK (octet_length(request_digest) = 32),
        way            text        NOT NULL,
        key_id         text        NOT NULL REFERENCES sealed_key,
        audit_sequence bigint      NOT NULL,
        expire_time    timestamptz NOT NULL,
        create_time    timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX release_request_by_key ON release_request (key_id, create_time)",
    "GRANT SELECT, INSERT, UPDATE ON sealed_key TO vault_service",
    "GRANT SELECT, INSERT ON release_request TO vault_service",
)


def upgrade() -> None:
    for statement in (*create_chassis_tables_v1("vault_service"), *KEYS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping wrapped content keys would lose every key")
