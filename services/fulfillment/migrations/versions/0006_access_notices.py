"""Notices to customers of unusual accesses to their keys: of each key at most one a day."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    """
    CREATE TABLE access_notice (
        key_id      text        NOT NULL,
        day         date        NOT NULL,
        order_id    text        NOT NULL REFERENCES customer_order,
        access_time timestamptz NOT NULL,
        news        text[]      NOT NULL,
        run_at      timestamptz,
        tries       integer     NOT NULL DEFAULT 0,
        send_time   timestamptz,
        failure     text        NOT NULL DEFAULT '',
        PRIMARY KEY (key_id, day)
    )
    """,
    "CREATE INDEX access_notice_due ON access_notice (run_at) WHERE run_at IS NOT NULL",
    "CREATE INDEX access_notice_by_age ON access_notice (access_time)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON access_notice TO fulfillment_service",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE access_notice")
