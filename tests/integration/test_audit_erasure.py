"""Who is erased is nowhere to be read: not in a row, not in an export, not with everything opened that still opens."""

import asyncio
import base64
import io
import json
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from audit.adapters.jose import JosePersonKeys
from audit.adapters.postgres import PostgresLog
from audit.appending import GroupAppender
from audit.domain.entry import Actor, ActorType, Appended, Draft
from audit.domain.filters import Filters
from audit.erasing import Erasure, erase_customer
from audit.exporting import export_entries
from audit.listing import list_entries
from chassis.database import Database
from chassis.keyring import Keyring
from cli.verifier import Checkpoint, PublicKey, leaf_hash, verify_export
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2

from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.unit.cli.signed_notes import LogKey

SHOP = Actor(ActorType.SERVICE, "shop")
CUSTOMERS = 20
TENTH = CUSTOMERS // 10


def person(number: int) -> Actor:
    return Actor(
        ActorType.CUSTOMER,
        f"customer-{number:03d}-id",
        f"customer-{number:03d}@planted.example",
        f"203.0.113.{100 + number}",
        f"Planted/{number:03d}",
    )


def planted(actor: Actor) -> set[bytes]:
    """Return everything personal of an actor as it could be spelled."""
    found = set()
    for value in (actor.id, actor.email, actor.ip_address, actor.user_agent):
        raw = value.encode()
        found |= {raw, raw.hex().encode()}
        # Three places within a group of three bytes; the ends of the text depend on its neighbours.
        found |= {base64.b64encode(b" " * shift + raw)[4:-4] for shift in range(3)}
        found |= {base64.urlsafe_b64encode(b" " * shift + raw)[4:-4] for shift in range(3)}
    return found


def a_draft(actor: Actor) -> Draft:
    append_id = str(uuid.uuid4())
    told = repr((actor.id, actor.email, append_id)).encode()
    return Draft(append_id, told, actor, "key.link_authorized", "vault", order_id="order-1", request_id=append_id)


def an_erasure(actor: Actor) -> Erasure:
    return Erasure(str(uuid.uuid4()), actor.id, SHOP, "shop")


@pytest.fixture
async def audit_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("audit", REPOSITORY / "services" / "audit" / "migrations")


@pytest.fixture
async def database(audit_database: OneDatabase) -> AsyncIterator[Database]:
    async with Database.open(audit_database.service_url, application="test") as database:
        yield database


@pytest.fixture
def keys() -> JosePersonKeys:
    return JosePersonKeys(Keyring.parse("v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"))


@pytest.fixture
async def appender(database: Database, keys: JosePersonKeys) -> AsyncIterator[GroupAppender]:
    appender = GroupAppender(PostgresLog(database), keys)
    task = asyncio.create_task(appender.run())
    yield appender
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def everything(audit_database: OneDatabase, log: PostgresLog, keys: JosePersonKeys) -> bytes:
    """Return every row of every table, a whole export, and every entry as the service opens it."""
    tables = await fetch(audit_database.superuser_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    said: list[bytes] = []
    for (table,) in tables:
        for row in await fetch(audit_database.superuser_url, f"TABLE {table}"):
            said += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    said += [chunk.lines async for chunk in export_entries(log, start=0, end=None)]
    page = await list_entries(log, keys, Filters(), size=500, token="")
    said += [repr((e.actor.id, e.actor.email, e.actor.ip_address, e.actor.user_agent)).encode() for e in page.entries]
    for line in b"".join(said).split(b'"personal":"')[1:]:
        said += [base64.urlsafe_b64decode(part + b"==") for part in line.partition(b'"')[0].split(b".")]
    return b"\n".join(said)


async def plant_dead_letters(audit_database: OneDatabase, actor: Actor) -> None:
    body = AuditRecorded(
        actor=actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id=actor.id, email=actor.email), action="No Action"
    )
    connection = await asyncpg.connect(audit_database.superuser_url)
    for data in (body.SerializeToString(), b"\xff" + actor.id.encode(), b"of nobody"):
        await connection.execute(
            "INSERT INTO dead_letter (dead_letter_id, consumer, event_id, subject, headers, data, reason, deliveries) "
            "VALUES (gen_random_uuid(), 'audit-recorder', gen_random_uuid(), 's', '{}', $1, 'r', 1)",
            data,
        )
    await connection.close()


async def test_a_tenth_of_the_customers_is_erased_and_no_byte_of_theirs_is_left_and_every_hash_holds(
    appender: GroupAppender, database: Database, keys: JosePersonKeys, audit_database: OneDatabase
) -> None:
    log, key = PostgresLog(database), LogKey()
    people = [person(number) for number in range(CUSTOMERS)]
    for _ in range(5):
        await asyncio.gather(*(appender.append(a_draft(actor)) for actor in people))
    for actor in people:
        await plant_dead_letters(audit_database, actor)
    before = await everything(audit_database, log, keys)
    lines = b"".join([chunk.lines async for chunk in export_entries(log, start=0, end=None)])
    checkpoint = Checkpoint.read(key.checkpoint_of(lines.splitlines()), PublicKey.parse(key.vkey))
    assert all(any(text in before for text in planted(actor)) for actor in people)

    for actor in people[:TENTH]:
        await erase_customer(log, keys, an_erasure(actor))

    after = await everything(audit_database, log, keys)
    for actor in people[:TENTH]:
        assert not [text for text in planted(actor) if text in after]
        assert not (await list_entries(log, keys, Filters(actor_id=actor.id), size=9, token="")).entries
    for actor in people[TENTH:]:
        assert actor.email.encode() in after
        assert len((await list_entries(log, keys, Filters(actor_id=actor.id), size=9, token="")).entries) == 5
    again = b"".join([chunk.lines async for chunk in export_entries(log, start=0, end=None)])
    assert again.startswith(lines)
    assert verify_export(io.BytesIO(again), [checkpoint], tail=True) == (5 * CUSTOMERS, TENTH)
    for row in await fetch(audit_database.superuser_url, "SELECT canonical, leaf_hash FROM entry"):
        assert leaf_hash(row["canonical"].encode()) == row["leaf_hash"]


async def test_appends_that_race_the_erasure_are_of_the_old_person_or_of_a_new_one(
    appender: GroupAppender, database: Database, keys: JosePersonKeys, audit_database: OneDatabase
) -> None:
    log, alice = PostgresLog(database), person(1)
    await appender.append(a_draft(alice))
    results = await asyncio.gather(
        *(appender.append(a_draft(alice)) for _ in range(40)),
        *(erase_customer(log, keys, an_erasure(alice)) for _ in range(3)),
        *(appender.append(a_draft(alice)) for _ in range(40)),
    )
    assert all(isinstance(result, Appended) for result in results)
    last = await appender.append(a_draft(alice))
    rows = await fetch(audit_database.superuser_url, "SELECT sequence, canonical FROM entry ORDER BY sequence")
    assert [row["sequence"] for row in rows] == list(range(85))
    # Between two erasures there is one pseudonym, which none of the others shares.
    stretches: list[set[str]] = [set()]
    for row in rows:
        entry = json.loads(row["canonical"])
        if entry["action"] == "customer.erased":
            stretches.append(set())
        else:
            stretches[-1].add(entry["actor"]["id"])
    pseudonyms = [name for stretch in stretches for name in stretch]
    assert all(len(stretch) <= 1 for stretch in stretches)
    assert len(pseudonyms) == len(set(pseudonyms))
    persons = await fetch(audit_database.superuser_url, "SELECT pseudonym FROM person")
    assert [row["pseudonym"] for row in persons] == pseudonyms[-1:]
    found = await list_entries(log, keys, Filters(actor_id=alice.id), size=500, token="")
    assert found.entries[-1].entry.sequence == last.sequence


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM person",
        "SELECT forget_person((SELECT array_agg(lookup) FROM person), 0)",
        "SELECT forget_person((SELECT array_agg(lookup) FROM person), 1)",
        "SELECT forget_person(array_fill('x'::bytea, ARRAY[17]), 1)",
    ],
    ids=["delete", "no-erasure", "erased-before", "many"],
)
async def test_the_service_role_forgets_nobody_without_an_entry_in_the_same_transaction(
    appender: GroupAppender, database: Database, keys: JosePersonKeys, audit_database: OneDatabase, statement: str
) -> None:
    await appender.append(a_draft(person(1)))
    assert (await erase_customer(PostgresLog(database), keys, an_erasure(person(2)))).sequence == 1
    connection = await asyncpg.connect(audit_database.service_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()
    assert len(await fetch(audit_database.superuser_url, "TABLE person")) == 1


async def test_what_a_dead_letter_says_stays_told_of_nobody(
    database: Database, keys: JosePersonKeys, audit_database: OneDatabase
) -> None:
    alice = person(1)
    await plant_dead_letters(audit_database, alice)
    await erase_customer(PostgresLog(database), keys, an_erasure(alice))
    letters = await fetch(audit_database.superuser_url, "SELECT data FROM dead_letter ORDER BY length(data)")
    assert [letter["data"] for letter in letters[:2]] == [b"", b"of nobody"]
    told = AuditRecorded.FromString(letters[2]["data"])
    assert (told.action, told.actor.id, told.actor.email) == ("No Action", "erased", "")
