"""Since when a purchase waits for buying to go on."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE purchase ADD COLUMN park_time timestamptz")


def downgrade() -> None:
    raise NotImplementedError("dropping it would let what waits begin its wait anew")
