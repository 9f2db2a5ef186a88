"""Which versions of the digests are in use, found by one look into the index for each."""

from alembic import op

revision = "0006"
down_revision = "0005"

# A fingerprint begins with its version. The version is a key of its own here, since not every collation sorts `v1.`
# before `v10.`, and the looks must go over each version once.
STATEMENT = "CREATE INDEX sealed_key_by_digest_version ON sealed_key ((split_part(fingerprint, '.', 1)), key_id)"


def upgrade() -> None:
    op.execute(STATEMENT)


def downgrade() -> None:
    op.execute("DROP INDEX sealed_key_by_digest_version")
