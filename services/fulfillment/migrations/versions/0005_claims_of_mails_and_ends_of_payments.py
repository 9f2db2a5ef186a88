"""Numbered claims of mails, last questions, and payments that a person assigns to an order or closes."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    "ALTER TABLE purchase ADD COLUMN overdue_time timestamptz",
    # The version before claims without a number: it marks whatever it was at, as it always did.
    "ALTER TABLE mail ADD COLUMN lease_until timestamptz, ADD COLUMN claim bigint NOT NULL DEFAULT 0",
    """
    ALTER TABLE payment
        ADD COLUMN told_order_id text,
        ADD COLUMN close_time    timestamptz,
        ADD COLUMN closure       text,
        ADD COLUMN close_note    text,
        ADD CONSTRAINT closed_with_a_reason CHECK ((close_time IS NULL) = (closure IS NULL)) NOT VALID
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("dropping it would lose which payments were assigned and closed, and why")
