"""The tree in PostgreSQL: the port and its fake, the migration over what is there, roles, and what proofs cost."""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from audit.adapters.ed25519 import Ed25519Notary
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog
from audit.adapters.tree import HASHES, PostgresTree, columns
from audit.appending import GroupAppender, append_drafts
from audit.checkpointing import Checkpoints
from audit.domain.entry import Actor, ActorType, Draft
from audit.domain.tree import GrowingTree, Node, ProofPath, consistency_path, cover, inclusion_path
from audit.errors import LogInconsistent
from audit.growing import TreeFiller, present_tree
from audit.ports import Log, NewEntry, Tree
from audit.proving import Prover
from audit.verifying import Finding, Verdict, Verifier
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.keyring import Keyring
from chassis.migrate import migrate

from tests.integration.audit_crowd import plant_log
from tests.integration.audit_replicas import CHECKPOINT_SECRET, ORIGIN, tamper
from tests.integration.fulfillment_crowd import cost
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.integration.test_audit_log_port import an_entry
from tests.unit.audit.memory_log import MemoryLog
from tests.unit.audit.memory_tree import MemoryCheckpoints, MemoryTree

MIGRATIONS = REPOSITORY / "services" / "audit" / "migrations"
KEYS = JosePersonKeys(Keyring.parse("v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))
VAULT = Actor(ActorType.SERVICE, "vault")


@dataclass(frozen=True)
class Ports:
    log: Log
    tree: Tree


@pytest.fixture
async def audit_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("audit", MIGRATIONS)


@pytest.fixture(params=["memory", "postgres"])
async def ports(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Ports]:
    if request.param == "memory":
        log = MemoryLog()
        yield Ports(log, MemoryTree(log))
        return
    made = await postgres.make_database("audit", MIGRATIONS)
    async with Database.open(made.service_url, application="test") as database:
        yield Ports(PostgresLog(database), PostgresTree(database))


def leaf(entry: NewEntry) -> bytes:
    return entry.appended.leaf_hash


async def store(ports: Ports, *entries: NewEntry) -> None:
    async with ports.log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_entries(entries)


def drafts(count: int) -> list[Draft]:
    return [Draft(str(uuid.uuid4()), b"told", VAULT, "key.sealed", "vault") for _ in range(count)]


async def append(log: Log, count: int) -> None:
    async with log.transaction() as transaction:
        await append_drafts(transaction, KEYS, drafts(count))


def tree_of(leaves: list[bytes]) -> tuple[bytes, dict[Node, bytes]]:
    tree, subtrees = GrowingTree(0, []), dict[Node, bytes]()
    for digest in leaves:
        subtrees.update(tree.add(digest))
    return tree.root(), subtrees


async def stored(url: str) -> tuple[list[bytes], dict[Node, bytes]]:
    """Give what lies in the database: leaf hashes by sequence, and subtrees."""
    leaves = [row["leaf_hash"] for row in await fetch(url, "SELECT leaf_hash FROM entry ORDER BY sequence")]
    rows = await fetch(url, "SELECT level, index, hash FROM tree_node")
    return leaves, {Node(row["level"], row["index"]): row["hash"] for row in rows}


# The port


async def test_an_empty_tree_has_nothing(ports: Ports) -> None:
    async with ports.tree.reading() as reading:
        assert await reading.entry_count() == await reading.filled() == 0
        assert await reading.hashes([Node(0, 0), Node(1, 0)]) == {}
        assert await reading.hashes([]) == {}
        assert await reading.stored_entries(0, limit=5) == []


async def test_hashes_are_read_as_they_were_stored_and_those_of_leaves_are_the_entries(ports: Ports) -> None:
    entries = [an_entry(number) for number in range(3)]
    await store(ports, *entries)
    subtrees = {Node(1, 0): bytes(32), Node(7, 3): bytes(range(32))}
    async with ports.log.transaction() as transaction:
        await transaction.take_turn()
        await transaction.add_subtrees(subtrees)
        assert await transaction.hashes([Node(7, 3)]) == {Node(7, 3): bytes(range(32))}
    async with ports.tree.reading() as reading:
        assert await reading.hashes([Node(0, 2), Node(0, 3), Node(1, 0), Node(1, 1), Node(7, 3)]) == {
            Node(0, 2): leaf(entries[2]),
            **subtrees,
        }
        assert (await reading.entry_count(), await reading.filled()) == (3, 2)


async def test_entries_are_read_raw_by_sequence(ports: Ports) -> None:
    entries = [an_entry(number) for number in range(5)]
    await store(ports, *entries)
    async with ports.tree.reading() as reading:
        found = await reading.stored_entries(1, limit=3)
    assert [(entry.sequence, entry.canonical, entry.leaf_hash) for entry in found] == [
        (number, entries[number].canonical, leaf(entries[number])) for number in (1, 2, 3)
    ]


async def test_filling_is_a_turn_that_reads_leaves_and_keeps_what_it_adds(ports: Ports) -> None:
    entries = [an_entry(number) for number in range(4)]
    await store(ports, *entries)
    async with ports.tree.filling() as filling:
        assert await filling.leaf_hashes(1, limit=2) == [leaf(entries[1]), leaf(entries[2])]
        assert await filling.leaf_hashes(3, limit=9) == [leaf(entries[3])]
        await filling.add_subtrees({Node(1, 0): bytes(32)})
    async with ports.tree.reading() as reading:
        assert await reading.hashes([Node(1, 0)]) == {Node(1, 0): bytes(32)}


async def test_a_turn_to_fill_that_fails_leaves_nothing(ports: Ports) -> None:
    async def fail() -> None:
        async with ports.tree.filling() as filling:
            await filling.add_subtrees({Node(1, 0): bytes(32)})
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with ports.tree.reading() as reading:
        assert await reading.hashes([Node(1, 0)]) == {}


async def test_whoever_fills_and_whoever_appends_take_turns(ports: Ports) -> None:
    began = asyncio.Event()

    async def append_one() -> None:
        async with ports.log.transaction() as transaction:
            began.set()
            await transaction.take_turn()
            await transaction.add_entries([an_entry(0)])

    async with ports.tree.filling() as filling:
        task = asyncio.create_task(append_one())
        await began.wait()
        await asyncio.sleep(0.05)
        assert await filling.entry_count() == 0
    await task
    async with ports.tree.reading() as reading:
        assert await reading.entry_count() == 1


# Appending


async def test_replicas_that_append_at_once_grow_one_tree(audit_database: OneDatabase) -> None:
    async with (
        Database.open(audit_database.service_url, application="one") as one,
        Database.open(audit_database.service_url, application="two") as two,
    ):
        appenders = [GroupAppender(PostgresLog(database), KEYS) for database in (one, two)]
        tasks = [asyncio.create_task(appender.run()) for appender in appenders]

        async def append_later(number: int, draft: Draft) -> None:
            await asyncio.sleep(number % 50 / 500)
            await appenders[number % 2].append(draft)

        await asyncio.gather(*(append_later(number, draft) for number, draft in enumerate(drafts(301))))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with PostgresTree(one).reading() as reading:
            present = await present_tree(reading)
    leaves, subtrees = await stored(audit_database.superuser_url)
    assert (present.root, subtrees) == tree_of(leaves)
    assert present.size == 301


async def test_an_append_that_fails_leaves_no_hash_of_the_tree(audit_database: OneDatabase) -> None:
    async with Database.open(audit_database.service_url, application="test") as database:
        log = PostgresLog(database)
        await append(log, 3)

        async def fail() -> None:
            async with log.transaction() as transaction:
                await append_drafts(transaction, KEYS, drafts(5))
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await fail()
        await append(log, 2)
    leaves, subtrees = await stored(audit_database.superuser_url)
    assert len(leaves) == 5
    assert subtrees == tree_of(leaves)[1]


# The migration


async def test_the_migration_makes_the_tree_of_what_is_there_and_the_filler_of_what_comes_beside_it(
    postgres: Postgres, tmp_path: Path
) -> None:
    before = tmp_path / "migrations" / "versions"
    before.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_first_tables.py", before)
    made = await postgres.make_database("audit", before.parent, template="audit_0001_template")
    connection = await asyncpg.connect(made.migrator_url)
    insert = "INSERT INTO entry (sequence, append_id, request_digest, canonical, leaf_hash) VALUES ($1, $2, $3, $4, $5)"

    async def append_as_before(start: int, end: int) -> None:
        entries = [an_entry(number) for number in range(start, end)]
        rows = [
            (entry.appended.sequence, uuid.UUID(entry.append_id), bytes(32), entry.canonical, leaf(entry))
            for entry in entries
        ]
        await connection.executemany(insert, rows)

    await append_as_before(0, 237)
    await migrate(made.migrator_url, MIGRATIONS)
    leaves, subtrees = await stored(made.superuser_url)
    assert subtrees == tree_of(leaves)[1]
    await append_as_before(237, 300)
    async with Database.open(made.service_url, application="test") as database:
        await append(PostgresLog(database), 4)
        filler = TreeFiller(PostgresTree(database))
        assert not await filler.fill_some()
        await append(PostgresLog(database), 4)
        async with PostgresTree(database).reading() as reading:
            present = await present_tree(reading)
    await connection.close()
    leaves, subtrees = await stored(made.superuser_url)
    assert (present.size, present.root) == (308, tree_of(leaves)[0])
    assert subtrees == tree_of(leaves)[1]


# Roles


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tree_node SET hash = hash",
        "DELETE FROM tree_node",
        "TRUNCATE tree_node",
        "ALTER TABLE tree_node DISABLE TRIGGER ALL",
        "DROP TABLE tree_node",
    ],
    ids=["update", "delete", "truncate", "disable triggers", "drop"],
)
async def test_the_service_role_can_change_nothing_of_the_tree(audit_database: OneDatabase, statement: str) -> None:
    async with Database.open(audit_database.service_url, application="test") as database:
        await append(PostgresLog(database), 2)
    connection = await asyncpg.connect(audit_database.service_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize(
    "statement", ["UPDATE tree_node SET hash = hash", "DELETE FROM tree_node", "TRUNCATE tree_node"]
)
async def test_not_even_a_superuser_changes_the_tree_by_a_slip(audit_database: OneDatabase, statement: str) -> None:
    async with Database.open(audit_database.service_url, application="test") as database:
        await append(PostgresLog(database), 2)
    connection = await asyncpg.connect(audit_database.superuser_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await connection.execute(statement)
    await connection.close()


# A hand in the database

CHANGE = "UPDATE entry SET canonical = replace(canonical, 'key.sealed', 'key.opened')"
CHANGE_WITH_HASH = (
    f"{CHANGE}, leaf_hash = "
    "sha256('\\x00'::bytea || convert_to(replace(canonical, 'key.sealed', 'key.opened'), 'UTF8'))"
)


@dataclass(frozen=True)
class Witness:
    """A log of twelve entries, published at twelve, and who looks at it."""

    made: OneDatabase
    log: Log
    checkpoints: Checkpoints
    verifier: Verifier

    async def verdict(self) -> Verdict | None:
        return [progress async for progress in self.verifier.verify()][-1].verdict


@pytest.fixture
async def witness(audit_database: OneDatabase) -> AsyncIterator[Witness]:
    store, notary = MemoryCheckpoints(), Ed25519Notary(ORIGIN, Keyring.parse(CHECKPOINT_SECRET))
    async with Database.open(audit_database.service_url, application="test") as database:
        tree = PostgresTree(database)
        checkpoints = Checkpoints(tree, notary, store, origin=ORIGIN, clock=SystemClock())
        witness = Witness(
            audit_database, PostgresLog(database), checkpoints, Verifier(tree, notary, store, origin=ORIGIN)
        )
        await append(witness.log, 12)
        await checkpoints.publish()
        assert await witness.verdict() == Verdict(Finding.SOUND)
        yield witness


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        (f"{CHANGE} WHERE sequence = 7", Verdict(Finding.ENTRY_CHANGED, 7)),
        (f"{CHANGE_WITH_HASH} WHERE sequence = 6", Verdict(Finding.HASH_CHANGED, 6)),
        ("DELETE FROM entry WHERE sequence = 3", Verdict(Finding.ENTRY_MISSING, 3)),
        ("DELETE FROM tree_node WHERE level = 2 AND index = 1", Verdict(Finding.HASH_CHANGED, 4)),
        ("DELETE FROM entry WHERE sequence >= 8", Verdict(Finding.LOG_TRUNCATED, 8, 12)),
        ("DELETE FROM entry", Verdict(Finding.LOG_TRUNCATED, 0, 12)),
    ],
    ids=["changed", "changed with its hash", "deleted", "hash deleted", "cut short", "emptied"],
)
async def test_a_hand_in_the_database_is_found_and_named(witness: Witness, statement: str, verdict: Verdict) -> None:
    await tamper(witness.made, statement)
    assert await witness.verdict() == verdict


async def test_who_changes_entries_with_all_their_hashes_is_found_out_by_what_was_published(witness: Witness) -> None:
    await tamper(witness.made, f"{CHANGE_WITH_HASH} WHERE sequence = 2", "DELETE FROM tree_node")
    leaves, _ = await stored(witness.made.superuser_url)
    _, subtrees = tree_of(leaves)
    rows = (f"({node.level}, {node.index}, '\\x{digest.hex()}')" for node, digest in subtrees.items())
    await tamper(witness.made, f"INSERT INTO tree_node VALUES {', '.join(rows)}")  # noqa: S608 # numbers and hashes
    assert await witness.verdict() == Verdict(Finding.CHECKPOINT_MISMATCH, 0, 12)
    for act in (witness.checkpoints.present, witness.checkpoints.publish):
        with pytest.raises(LogInconsistent):
            await act()
    await append(witness.log, 4)
    with pytest.raises(LogInconsistent):
        await witness.checkpoints.publish()


# Cost

# KEYFERRY_PROOF=full plants a million.
MANY = 1_000_000 if os.environ.get("KEYFERRY_PROOF") == "full" else 20_000
# A look-up by key: the levels of an index of up to ten million rows, its row, and a page to spare.
BUFFERS_OF_ONE = 6


async def test_what_appends_and_proofs_read_is_few_rows_by_key_however_large_the_log(
    audit_database: OneDatabase,
) -> None:
    await plant_log(audit_database.superuser_url, MANY)

    def of(path: ProofPath) -> list[Node]:
        return [node for step in path for node in step]

    size = MANY - 1
    for nodes in (
        of([cover(0, size)]),
        of(inclusion_path(size // 3, size)),
        of(inclusion_path(size - 1, size)),
        of(consistency_path(size // 3, size)),
    ):
        read = await cost(audit_database.superuser_url, HASHES.bindparams(**columns(nodes)))
        assert len(nodes) <= 2 * size.bit_length()
        assert read.buffers <= BUFFERS_OF_ONE * len(nodes)
        assert not read.scanned
        assert read.indexes <= {"entry_pkey", "tree_node_pkey"}
    async with Database.open(audit_database.service_url, application="test") as database:
        leaf_hash, hashes = await Prover(PostgresTree(database)).inclusion(size // 3, size)
        assert sum(map(len, (leaf_hash, *hashes))) < 2048
        await append(PostgresLog(database), 3)
        async with PostgresTree(database).reading() as reading:
            assert (await present_tree(reading)).size == MANY + 3
