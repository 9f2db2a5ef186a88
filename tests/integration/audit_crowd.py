"""Very many entries with their tree, made by PostgreSQL itself."""

import asyncpg

# Rows of one statement.
BATCH = 100_000
_INDEXES = ("entry_by_order", "entry_by_key", "entry_by_action", "entry_by_actor")
_CHECKS = ("entry_sequence_is_hashed", "entry_hash_holds")
_ENTRIES = """
    INSERT INTO entry (sequence, append_id, request_digest, canonical, leaf_hash)
    SELECT number, gen_random_uuid(), sha256(int8send(number)), made.canonical,
        sha256('\\x00'::bytea || convert_to(made.canonical, 'UTF8'))
    FROM generate_series($1::bigint, $2::bigint - 1) AS number, LATERAL (
        SELECT '{"action":"key.sealed","actor":{"id":"vault","type":"SERVICE"},"details":{},"key_id":"key-' || number
            || '","occur_time":"","order_id":"order-' || number / 4 || '","personal":"","recorder":"vault",'
            || '"request_id":"r","sequence":' || number || ',"time":"2026-01-02T12:00:00.000000Z","version":1}'
    ) AS made(canonical)
"""
_PAIRS = """
    INSERT INTO tree_node (level, index, hash)
    SELECT 1, sequence / 2, sha256('\\x01'::bytea || string_agg(leaf_hash, ''::bytea ORDER BY sequence))
    FROM entry WHERE sequence >= 2 * $1::bigint AND sequence < 2 * $2::bigint GROUP BY sequence / 2
"""
_HIGHER = """
    INSERT INTO tree_node (level, index, hash)
    SELECT $3::smallint, index / 2, sha256('\\x01'::bytea || string_agg(hash, ''::bytea ORDER BY index))
    FROM tree_node WHERE level = $3::smallint - 1 AND index >= 2 * $1::bigint AND index < 2 * $2::bigint
    GROUP BY index / 2
"""


async def plant_log(url: str, count: int) -> None:
    """Fill an empty log with so many entries, as superuser."""
    connection = await asyncpg.connect(url)
    try:
        # Indexes are made faster at once than row by row, and what PostgreSQL makes itself needs no check.
        made = {name: await connection.fetchval("SELECT pg_get_indexdef($1::regclass)", name) for name in _INDEXES}
        for name in _INDEXES:
            await connection.execute(f"DROP INDEX {name}")
        checks = {
            name: await connection.fetchval(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", name
            )
            for name in _CHECKS
        }
        for name in ("entry_append_id_key", *_CHECKS):
            await connection.execute(f"ALTER TABLE entry DROP CONSTRAINT {name}")
        await connection.execute("SET synchronous_commit TO off")
        for start in range(0, count, BATCH):
            await connection.execute(_ENTRIES, start, min(start + BATCH, count))
        level, subtrees = 1, count // 2
        while subtrees:
            for start in range(0, subtrees, BATCH):
                end = min(start + BATCH, subtrees)
                await connection.execute(*((_PAIRS, start, end) if level == 1 else (_HIGHER, start, end, level)))
            level, subtrees = level + 1, subtrees // 2
        await connection.execute("ALTER TABLE entry ADD CONSTRAINT entry_append_id_key UNIQUE (append_id)")
        for definition in made.values():
            await connection.execute(definition)
        for name, definition in checks.items():
            await connection.execute(f"ALTER TABLE entry ADD CONSTRAINT {name} {definition} NOT VALID")
        for table in ("entry", "tree_node"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")
    finally:
        await connection.close()
