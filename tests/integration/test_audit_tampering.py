"""Whatever a superuser does to a row of the log, an export and an older checkpoint show it.

KEYFERRY_PROOF=full does it to a log of a million entries, and each time the verifier has a minute for it.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncpg
import pytest
from audit.adapters.postgres import PostgresLog
from audit.exporting import export_entries
from chassis.database import Database
from pymerkle import InmemoryTree

from cli import verifier
from tests.integration.audit_planting import plant_entries
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres
from tests.unit.cli.signed_notes import LogKey, merkle_tree_hash

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
ENTRIES = 1_000_000 if FULL else 3_000
# So many rows are rewritten at most: where entries are renumbered, they are the last ones.
WINDOW = 500
MOST_SECONDS = 60.0
# Python and `cryptography` are some 30 MB of it, and the longest line that is read 1 MB.
MOST_MEMORY_KILOBYTES = 100_000
MIGRATIONS = REPOSITORY / "services" / "audit" / "migrations"
COLUMNS = ("sequence", "append_id", "request_digest", "canonical", "leaf_hash")

Row = tuple[int, str]
"""What a superuser writes: the row's sequence, and the canonical entry in it."""


@dataclass(frozen=True)
class Signed:
    """A log, the checkpoints that were signed before anybody touched it, and the public key."""

    database: OneDatabase
    checkpoint: Path
    older: Path
    public_key: str


@pytest.fixture(scope="module")
async def signed(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    database = await postgres.make_database("audit", MIGRATIONS)
    await plant_entries(database.superuser_url, ENTRIES)
    connection = await asyncpg.connect(database.superuser_url)
    lines = [row[0].encode() for row in await connection.fetch("SELECT canonical FROM entry ORDER BY sequence")]
    # Who may do anything takes away what would only be in the way of slips of the hand.
    for constraint in ("entry_hash_holds", "entry_sequence_is_hashed"):
        await connection.execute(f"ALTER TABLE entry DROP CONSTRAINT {constraint}")
    await connection.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
    await connection.close()
    folder, key = tmp_path_factory.mktemp("signed"), LogKey()
    (folder / "checkpoint").write_bytes(key.checkpoint_of(lines))
    (folder / "older").write_bytes(key.checkpoint_of(lines[: ENTRIES // 2]))
    if not FULL:
        oracle = InmemoryTree(algorithm="sha256")
        oracle.append_entries(lines)
        assert oracle.get_root() == merkle_tree_hash(lines)
    return Signed(database, folder / "checkpoint", folder / "older", key.vkey)


async def export(database: OneDatabase, path: Path) -> None:
    async with Database.open(database.service_url, application="test") as opened:
        with path.open("wb") as file:
            async for chunk in export_entries(PostgresLog(opened), start=0, end=None):
                file.write(chunk.lines)


def numbered(canonical: str, sequence: int) -> str:
    return json.dumps({**json.loads(canonical), "sequence": sequence}, separators=(",", ":"), sort_keys=True)


def changed(canonical: str) -> str:
    return canonical.replace("key.link_authorized", "key.link_released")


def renumbered(rows: list[Row]) -> list[Row]:
    first = rows[0][0]
    return [(place, numbered(canonical, place)) for place, (_, canonical) in enumerate(rows, first)]


@dataclass(frozen=True)
class Tampering:
    """What is done to some rows that begin at a place, and what the verifier says of it."""

    at: int
    rewrite: Callable[[list[Row]], list[Row]]
    told: str


MIDDLE = ENTRIES // 2 + 7
NEAR_THE_END = ENTRIES - WINDOW
LAST = ENTRIES - 1
NOT_WHAT_WAS_SIGNED = f"sequences {ENTRIES // 2} to {LAST}"
TAMPERINGS = {
    "changed": Tampering(MIDDLE, lambda rows: [(rows[0][0], changed(rows[0][1])), *rows[1:]], NOT_WHAT_WAS_SIGNED),
    "changed the first": Tampering(
        0, lambda rows: [(0, changed(rows[0][1])), *rows[1:]], f"sequences 0 to {ENTRIES // 2 - 1}"
    ),
    "changed the last": Tampering(
        NEAR_THE_END, lambda rows: [*rows[:-1], (LAST, rows[-1][1].replace("order-", "other-"))], NOT_WHAT_WAS_SIGNED
    ),
    "changed what is personal": Tampering(
        MIDDLE, lambda rows: [(place, text.replace("xxx", "xxy")) for place, text in rows], NOT_WHAT_WAS_SIGNED
    ),
    "deleted": Tampering(MIDDLE, lambda rows: rows[1:], f"sequence {MIDDLE}: {MIDDLE + 1} stands"),
    "deleted the first": Tampering(0, lambda rows: rows[1:], "sequence 0: 1 stands"),
    "deleted the last": Tampering(NEAR_THE_END, lambda rows: rows[:-1], f"sequence {LAST} is missing"),
    "deleted and closed the gap": Tampering(
        NEAR_THE_END, lambda rows: renumbered([rows[0], *rows[2:]]), f"sequence {LAST} is missing"
    ),
    "deleted, closed the gap and filled it up": Tampering(
        NEAR_THE_END, lambda rows: renumbered([rows[0], *rows[2:], rows[-1]]), NOT_WHAT_WAS_SIGNED
    ),
    "reordered": Tampering(
        MIDDLE,
        lambda rows: [(rows[0][0], rows[1][1]), (rows[1][0], rows[0][1]), *rows[2:]],
        f"sequence {MIDDLE}: {MIDDLE + 1} stands",
    ),
    "reordered and renumbered": Tampering(
        MIDDLE, lambda rows: renumbered([(MIDDLE, rows[1][1]), rows[0], *rows[2:]]), NOT_WHAT_WAS_SIGNED
    ),
    "moved to the end": Tampering(
        NEAR_THE_END, lambda rows: [*rows[:3], *rows[4:], (ENTRIES + 5, rows[3][1])], f"sequence {NEAR_THE_END + 3}: "
    ),
    "inserted": Tampering(NEAR_THE_END, lambda rows: renumbered([*rows[:5], rows[4], *rows[5:]]), NOT_WHAT_WAS_SIGNED),
    "inserted at the end": Tampering(
        NEAR_THE_END, lambda rows: [*rows, (ENTRIES, numbered(rows[-1][1], ENTRIES))], f"sequence {ENTRIES}: inserted"
    ),
    "truncated": Tampering(NEAR_THE_END, lambda _rows: [], f"sequence {NEAR_THE_END} is missing"),
}


async def rewrite(connection: asyncpg.Connection, first: int, rows: list[Row]) -> None:
    async with connection.transaction():
        await connection.execute("DELETE FROM entry WHERE sequence >= $1 AND sequence < $2", first, first + WINDOW)
        await connection.execute("DELETE FROM entry WHERE sequence >= $1", ENTRIES)
        records = [
            (place, uuid.uuid4(), bytes(32), canonical, sha256(b"\0" + canonical.encode()).digest())
            for place, canonical in rows
        ]
        await connection.copy_records_to_table("entry", records=records, columns=COLUMNS)


@pytest.fixture
async def superuser(signed: Signed) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(signed.database.superuser_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_what_a_superuser_did_is_found(
    signed: Signed, superuser: asyncpg.Connection, tmp_path: Path, name: str
) -> None:
    tampering = TAMPERINGS[name]
    before = [
        (row["sequence"], row["canonical"])
        for row in await superuser.fetch(
            "SELECT sequence, canonical FROM entry WHERE sequence >= $1 ORDER BY sequence LIMIT $2",
            tampering.at,
            WINDOW,
        )
    ]
    after = tampering.rewrite(before)
    assert after != before
    await rewrite(superuser, tampering.at, after)
    try:
        await export(signed.database, tmp_path / "export")
    finally:
        await rewrite(superuser, tampering.at, before)
    began, began_working = time.monotonic(), time.process_time()
    with pytest.raises(verifier.Refused, match=tampering.told):
        verifier.verify(tmp_path / "export", [signed.checkpoint, signed.older], signed.public_key)
    worked = time.process_time() - began_working
    print(f"{ENTRIES} entries, {name}: found in {time.monotonic() - began:.1f} s, {worked:.1f} s of them working")  # noqa: T201 # the figure of a proof
    (tmp_path / "export").unlink()
    # It does one thing at a time: on a machine of its own both are the same, and the neighbours are not its doing.
    assert not FULL or worked <= MOST_SECONDS


def run_alone(program: Path, *arguments: str) -> tuple[str, int]:
    """Run the verifier from a copy, isolated: nothing of ours is beside it. What it says, and its memory in kB."""
    program.write_bytes(Path(verifier.__file__).read_bytes())
    measured = (
        "import re, runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__'); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-I", "-W", "ignore", "-c", measured, str(program), *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout.splitlines()
    return told[0], int(told[1])


async def test_what_nobody_touched_is_what_was_signed_says_the_file_by_itself(signed: Signed, tmp_path: Path) -> None:
    began = time.monotonic()
    await export(signed.database, tmp_path / "export")
    exported = time.monotonic()
    notes = ("--checkpoint", str(signed.checkpoint), "--checkpoint", str(signed.older))
    said, kilobytes = run_alone(
        tmp_path / "verifier.py", "--export", str(tmp_path / "export"), *notes, "--public-key", signed.public_key
    )
    took = time.monotonic() - exported
    print(f"{ENTRIES} entries: exported in {exported - began:.1f} s, verified in {took:.1f} s with {kilobytes} kB")  # noqa: T201 # same
    assert said == f"OK: {ENTRIES} entries are those that were signed"
    assert kilobytes <= MOST_MEMORY_KILOBYTES
