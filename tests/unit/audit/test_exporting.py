import json

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.appending import append_drafts
from audit.domain.entry import Actor, ActorType, Draft
from audit.exporting import LARGEST_CHUNK_BYTES, LINES_AT_ONCE, Chunk, export_entries

from tests.unit.audit.memory_log import MemoryLog

VAULT = Actor(ActorType.SERVICE, "vault")


async def fill(log: MemoryLog, keys: JosePersonKeys, count: int, *, detail: str = "") -> None:
    drafts = [Draft(f"append-{n}", b"", VAULT, "key.sealed", "vault", details={"d": detail}) for n in range(count)]
    async with log.transaction() as transaction:
        await append_drafts(transaction, keys, drafts)


async def exported(log: MemoryLog, *, start: int = 0, end: int | None = None) -> list[Chunk]:
    return [chunk async for chunk in export_entries(log, start=start, end=end)]


async def test_every_line_is_the_entry_as_it_was_hashed_in_its_order(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, 2 * LINES_AT_ONCE + 1)
    chunks = await exported(log)
    assert b"".join(chunk.lines for chunk in chunks).decode().split("\n")[:-1] == [
        entry.canonical for entry in log.stored
    ]
    assert [chunk.first_sequence for chunk in chunks] == [0, *(chunk.next_sequence for chunk in chunks[:-1])]
    assert chunks[-1].next_sequence == len(log.stored)


async def test_a_chunk_is_bounded_and_holds_whole_lines(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, 7, detail="x" * (LARGEST_CHUNK_BYTES // 3))
    chunks = await exported(log)
    assert [chunk.next_sequence for chunk in chunks] == [2, 4, 6, 7]
    for chunk in chunks:
        assert len(chunk.lines) <= LARGEST_CHUNK_BYTES
        assert all(json.loads(line) for line in chunk.lines.splitlines())


async def test_an_entry_larger_than_a_chunk_is_a_chunk_of_its_own(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, 2, detail="x" * LARGEST_CHUNK_BYTES)
    assert [chunk.next_sequence for chunk in await exported(log)] == [1, 2]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 3, [0, 1, 2]),
        (2, None, [2, 3, 4]),
        (2, 4, [2, 3]),
        (4, 99, [4]),
        (5, None, []),
        (9, None, []),
        (3, 3, []),
        (0, 0, []),
    ],
)
async def test_a_range_is_what_was_asked_for_as_far_as_it_is_there(
    log: MemoryLog, keys: JosePersonKeys, start: int, end: int | None, expected: list[int]
) -> None:
    await fill(log, keys, 5)
    lines = b"".join(chunk.lines for chunk in await exported(log, start=start, end=end)).splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == expected


async def test_it_ends_with_what_was_there_when_it_began(log: MemoryLog, keys: JosePersonKeys) -> None:
    await fill(log, keys, LINES_AT_ONCE + 1)
    stream = export_entries(log, start=0, end=None)
    await anext(stream)
    async with log.transaction() as transaction:
        await append_drafts(transaction, keys, [Draft("late", b"", VAULT, "key.sealed", "vault")])
    assert [chunk.next_sequence async for chunk in stream] == [LINES_AT_ONCE + 1]
