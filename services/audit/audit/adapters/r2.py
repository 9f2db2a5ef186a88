"""Published checkpoints in a bucket of Cloudflare R2, or any store that speaks S3, through obstore.

    checkpoints/000/000/000/001/234          the checkpoint of the log's first 1,234 entries

Fifteen digits in folders of a thousand: names sort as sizes do, and the newest is found by looking into one folder of
each level, however many there are. A checkpoint is only ever created (`If-None-Match: *`), never written again.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import obstore
from chassis.buckets import CALL_SECONDS, NOT_FOUND, is_missing, open_bucket
from chassis.deadline import bounded
from obstore.exceptions import AlreadyExistsError, BaseError

from audit.adapters.r2_bucket import provision_bucket
from audit.errors import CheckpointStoreUnavailable
from audit.ports import CheckpointExists, CheckpointMissing

PREFIX = "checkpoints"
_FOLDER = re.compile(rf"{PREFIX}(?:/[0-9]{{3}})+")
DIGITS = 15
FOLDER_DIGITS = 3
# A checkpoint has a few lines, and a signature for each version of the key.
MOST_NOTE_BYTES = 16 * 1024
READ_TOGETHER = 16


class R2Checkpoints:
    """Checkpoints in one bucket, which is theirs alone."""

    def __init__(self, *, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
        self._provision = partial(
            provision_bucket,
            endpoint=endpoint,
            bucket=bucket,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
        )
        self._provisioned = False
        self._store = open_bucket(
            endpoint=endpoint, bucket=bucket, access_key_id=access_key_id, secret_access_key=secret_access_key
        )

    async def publish(self, size: int, note: str) -> None:
        """Publish the checkpoint of a size. Raises CheckpointExists."""
        async with _mapped_errors():
            try:
                await obstore.put_async(self._store, _name(size), note.encode(), mode="create", use_multipart=False)
            except AlreadyExistsError:
                raise CheckpointExists(str(size)) from None

    async def read(self, size: int) -> str:
        """Return a published checkpoint. Raises CheckpointMissing."""
        return await self._read(_name(size))

    async def newest_size(self) -> int | None:
        """Return the largest published size; None when nothing was published."""
        folder = PREFIX
        async with _mapped_errors():
            # With the first look, not at the start: a store that is away holds nothing else up.
            if not self._provisioned:
                await asyncio.to_thread(self._provision)
                self._provisioned = True
            for _ in range(DIGITS // FOLDER_DIGITS - 1):
                listed = await obstore.list_with_delimiter_async(self._store, folder)
                below = [path for path in listed["common_prefixes"] if _FOLDER.fullmatch(path)]
                if not below:
                    return None
                folder = max(below)
            names = [each["path"] for each in (await obstore.list_with_delimiter_async(self._store, folder))["objects"]]
        return max(map(_size, names), default=None)

    async def notes(self) -> AsyncIterator[tuple[int, str]]:
        """Yield every published checkpoint with the size that it was published for, the smallest first."""
        listing = aiter(obstore.list(self._store, f"{PREFIX}/", chunk_size=READ_TOGETHER))
        while True:
            async with _mapped_errors():
                try:
                    names = sorted(each["path"] for each in await anext(listing))
                except StopAsyncIteration:
                    return
            for name, note in zip(names, await asyncio.gather(*map(self._note, names)), strict=True):
                yield _size(name), note

    async def _note(self, name: str) -> str:
        try:
            return await self._read(name)
        except CheckpointMissing:
            return ""

    async def _read(self, name: str) -> str:
        async with _mapped_errors():
            try:
                result = await obstore.get_async(self._store, name)
                # Whatever else lies there opens as no note.
                content = bytes(await result.bytes_async()) if result.meta["size"] <= MOST_NOTE_BYTES else b""
            except NOT_FOUND as error:
                if is_missing(error):
                    raise CheckpointMissing(name) from None
                raise
        return content.decode(errors="replace")


def _name(size: int) -> str:
    digits = f"{size:0{DIGITS}}"
    folders = (digits[start : start + FOLDER_DIGITS] for start in range(0, DIGITS, FOLDER_DIGITS))
    return "/".join((PREFIX, *folders))


def _size(name: str) -> int:
    """Return the size that a name tells; of a name that is not ours none that a log can have."""
    digits = name.removeprefix(PREFIX).replace("/", "")
    return int(digits) if digits.isdecimal() and _name(int(digits)) == name else 0


@asynccontextmanager
async def _mapped_errors() -> AsyncIterator[None]:
    try:
        async with bounded(CALL_SECONDS):
            yield
    except (BaseError, TimeoutError, OSError) as error:
        raise CheckpointStoreUnavailable("the store of checkpoints does not answer") from error
