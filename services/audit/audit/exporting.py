"""Exporting: entries as they were hashed, by sequence, in chunks of bounded size."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from audit.ports import Line, Log

# Read in one go: some hundred kilobytes as entries usually are, 20 MB at their very largest.
LINES_AT_ONCE = 500
# A quarter of what gRPC takes in one message unless told otherwise.
LARGEST_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines, the first one's sequence, and the sequence to go on with."""

    lines: bytes
    first_sequence: int
    next_sequence: int


async def export_entries(log: Log, *, start: int, end: int | None) -> AsyncIterator[Chunk]:
    """Yield the entries from sequence `start` to before `end`, or to the last one that there is now.

    No transaction lasts longer than one read: a slow reader holds up nobody. What is missing in the database is missing
    in the export.
    """
    async with log.transaction() as transaction:
        size = await transaction.size()
    end = size if end is None else min(end, size)
    while start < end:
        async with log.transaction() as transaction:
            lines = await transaction.lines(start, end, limit=LINES_AT_ONCE)
        if not lines:
            return
        for chunk in _chunks(lines):
            yield chunk
        start = lines[-1].sequence + 1


def _chunks(lines: Sequence[Line]) -> Iterator[Chunk]:
    gathered, length, first = list[bytes](), 0, lines[0].sequence
    for line in lines:
        text = line.canonical.encode() + b"\n"
        if gathered and length + len(text) > LARGEST_CHUNK_BYTES:
            yield Chunk(b"".join(gathered), first, line.sequence)
            gathered, length, first = [], 0, line.sequence
        gathered.append(text)
        length += len(text)
    yield Chunk(b"".join(gathered), first, lines[-1].sequence + 1)
