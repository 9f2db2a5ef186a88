"""Answers by request id (AIP-155): the same id with the same body gets the same answer, with another body an error."""

import hashlib
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.errors import RequestIdReused
from chassis.tables import REQUEST_LOG

R = TypeVar("R", bound=Message)


def request_digest(request: Message) -> bytes:
    """Return SHA-256 of a request's deterministic form. Never of a message that carries a secret."""
    return hashlib.sha256(
        request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    ).digest()


async def earlier_answer(
    connection: AsyncConnection, *, request_id: str, digest: bytes, response_class: type[R]
) -> R | None:
    """Return the answer this request id got before, or None when it is new.

    Takes a lock on the id until the transaction ends, so that of two at the same time one waits and finds the other's
    answer. Raises RequestIdReused when the id was used with another body.
    """
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:request_id, 0))"), {"request_id": request_id}
    )
    row = (
        await connection.execute(
            select(REQUEST_LOG.c.digest, REQUEST_LOG.c.response).where(REQUEST_LOG.c.request_id == request_id)
        )
    ).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        raise RequestIdReused(
            "request_id: was used with another body; use a new id for a new request",
            metadata={"request_id": request_id},
        )
    return response_class.FromString(row.response)


async def keep_answer(connection: AsyncConnection, *, request_id: str, digest: bytes, response: Message) -> None:
    """Keep the answer in the transaction of its effect."""
    await connection.execute(
        insert(REQUEST_LOG).values(
            request_id=request_id,
            method=response.DESCRIPTOR.full_name,
            digest=digest,
            response=response.SerializeToString(deterministic=True),
        )
    )
