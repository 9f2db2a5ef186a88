"""DEKs wrapped by Transit, fingerprints under every retained version, and what a held key repeats.

Replicas of before this migration may run beside it: they write what they wrote, and the new columns are empty then.
A key that one of them sealed is found by its one fingerprint, as it was before.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    # What Transit gives is its own text: 88 characters today, and its own business.
    """
    ALTER TABLE sealed_key
        ADD COLUMN other_fingerprints text[] NOT NULL DEFAULT '{}',
        ADD COLUMN same_key_id text,
        DROP CONSTRAINT sealed_key_wrapped_dek_check,
        ADD CONSTRAINT sealed_key_wrapped_dek_check CHECK (octet_length(wrapped_dek) BETWEEN 60 AND 512)
    """,
    # Only while the secret is rotated are there any; what has none is not in the index and costs nothing to move.
    """
    CREATE INDEX sealed_key_by_other_fingerprint ON sealed_key USING gin (other_fingerprints)
        WHERE other_fingerprints <> '{}'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("forgetting fingerprints would let a key that was sold to us twice go to a customer")
