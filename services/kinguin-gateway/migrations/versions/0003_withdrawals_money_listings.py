"""Withdrawn purchases, money that was paid back, and listings of which each page costs the same."""

from alembic import op

revision = "0003"
down_revision = "0002"

PURCHASES = (
    """
    ALTER TABLE purchase
        ADD COLUMN withdraw_time  timestamptz,
        ADD COLUMN refunded_cents bigint
    """,
    # Only what is `intended` is ever sent: what was withdrawn is not, whatever any replica writes, or one of before.
    """
    ALTER TABLE purchase
        ADD CONSTRAINT withdrawn_is_never_intended CHECK (withdraw_time IS NULL OR state <> 'intended')
    """,
    "CREATE INDEX purchase_by_state ON purchase (state, create_time, external_id)",
    "DROP INDEX purchase_unsettled",
)

MONEY = (
    """
    ALTER TABLE key_return
        ADD COLUMN charged_cents  bigint,
        ADD COLUMN refunded_cents bigint
    """,
    """
    UPDATE key_return SET charged_cents = purchase.charged_cents
    FROM purchase WHERE purchase.supplier_order_id = key_return.supplier_order_id
    """,
    "CREATE INDEX top_up_by_time ON top_up (top_up_time, top_up_id)",
)


def upgrade() -> None:
    for statement in (*PURCHASES, *MONEY):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a purchase whose withdrawal is forgotten may be bought")
