"""What the log was told of this service's settings last."""

from alembic import op
from chassis.tables import create_settings_table_v1

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in create_settings_table_v1("audit_service"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE told_settings")
