"""Who was forgotten lately, as keyed digests: for events that were on their way."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    "CREATE TABLE forgotten (lookup bytea PRIMARY KEY, forget_time timestamptz NOT NULL)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON forgotten TO audit_service",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE forgotten")
