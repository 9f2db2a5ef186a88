"""The Merkle tree: hashes of perfect subtrees, also over the entries that are there already."""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"

TREE = (
    """
    CREATE TABLE tree_node (
        level smallint NOT NULL CHECK (level > 0),
        index bigint   NOT NULL CHECK (index >= 0),
        hash  bytea    NOT NULL CHECK (octet_length(hash) = 32),
        PRIMARY KEY (level, index)
    )
    """,
    "CREATE TRIGGER node_is_final BEFORE UPDATE OR DELETE ON tree_node FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER tree_is_final BEFORE TRUNCATE ON tree_node FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "GRANT SELECT, INSERT ON tree_node TO audit_service",
)

# Subtrees of one statement: about a second's worth, far below the migrator's limit for a statement.
BATCH = 50_000

LOWEST = text(
    """
    INSERT INTO tree_node (level, index, hash)
    SELECT 1, sequence / 2, sha256('\\x01'::bytea || string_agg(leaf_hash, ''::bytea ORDER BY sequence))
    FROM entry
    WHERE sequence >= 2 * CAST(:start AS bigint) AND sequence < 2 * CAST(:end AS bigint)
    GROUP BY sequence / 2
    """
)
HIGHER = text(
    """
    INSERT INTO tree_node (level, index, hash)
    SELECT CAST(:level AS smallint), index / 2, sha256('\\x01'::bytea || string_agg(hash, ''::bytea ORDER BY index))
    FROM tree_node
    WHERE level = CAST(:level AS smallint) - 1
      AND index >= 2 * CAST(:start AS bigint) AND index < 2 * CAST(:end AS bigint)
    GROUP BY index / 2
    """
)


def upgrade() -> None:
    for statement in TREE:
        op.execute(statement)
    # Who runs the release before this one goes on appending without the tree; the service fills in the rest.
    connection = op.get_bind()
    entries = connection.execute(text("SELECT coalesce(max(sequence) + 1, 0) FROM entry")).scalar_one()
    level, subtrees = 1, entries // 2
    while subtrees:
        for start in range(0, subtrees, BATCH):
            bounds = {"start": start, "end": min(start + BATCH, subtrees)}
            if level == 1:
                connection.execute(LOWEST, bounds)
            else:
                connection.execute(HIGHER, {"level": level, **bounds})
        level, subtrees = level + 1, subtrees // 2


def downgrade() -> None:
    raise NotImplementedError("a tree that is dropped is a log that cannot be proven")
