"""A log with very many entries, made within PostgreSQL: each has its leaf hash, and its sequence is its place."""

import asyncpg

# Three entries for each order and one for each key; half of all by vault, the other half by a person for each twenty;
# `rare.action` once in a thousand, and never by vault. What is personal is as long as a JWE of it would be.
_PLANT = """
    INSERT INTO entry (sequence, append_id, request_digest, canonical, leaf_hash)
    SELECT no, gen_random_uuid(), sha256(''), canonical, sha256('\\x00'::bytea || convert_to(canonical, 'UTF8'))
    FROM (
        SELECT no, format(
            '{"action":"%s","actor":{"id":"%s","type":"%s"},"details":{"content_type":"text/plain"},"key_id":"key-%s",'
            '"occur_time":"","order_id":"order-%s","personal":"%s","recorder":"vault","request_id":"request-%s",'
            '"sequence":%s,"time":"%s","version":1}',
            CASE WHEN no % 1000 = 1 THEN 'rare.action' ELSE 'key.link_authorized' END,
            CASE no % 2 WHEN 0 THEN 'vault' ELSE 'p-' || no / 20 END,
            CASE no % 2 WHEN 0 THEN 'SERVICE' ELSE 'CUSTOMER' END,
            no, no / 3, CASE no % 2 WHEN 0 THEN '' ELSE repeat('x', 300) END, no, no,
            to_char(timestamp '2026-01-02' + no * interval '1 ms', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        ) AS canonical
        FROM generate_series($1::bigint, $2::bigint - 1) AS no
    ) AS made
"""
AT_ONCE = 50_000


async def plant_entries(url: str, count: int) -> None:
    """Fill an empty log with so many entries, as superuser."""
    connection = await asyncpg.connect(url)
    try:
        for first in range(0, count, AT_ONCE):
            await connection.execute(_PLANT, first, min(first + AT_ONCE, count))
        await connection.execute("VACUUM (ANALYZE) entry")
    finally:
        await connection.close()
