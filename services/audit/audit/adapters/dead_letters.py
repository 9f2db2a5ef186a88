"""Dead letters hold events as they came, personal fields and all: who is forgotten is struck from them too."""

from chassis.tables import DEAD_LETTER
from google.protobuf.message import DecodeError
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.domain.entry import NOBODY


async def strike_customer(connection: AsyncConnection, customer_id: str) -> None:
    """Take a customer out of every dead letter that names them. There are few: a run of them stops the consumer."""
    letters = await connection.execute(
        select(DEAD_LETTER.c.dead_letter_id, DEAD_LETTER.c.data)
        .where(text("position(:customer IN data) > 0"))
        .with_for_update(),
        {"customer": customer_id.encode()},
    )
    for letter in letters.all():
        await connection.execute(
            update(DEAD_LETTER)
            .where(DEAD_LETTER.c.dead_letter_id == letter.dead_letter_id)
            .values(data=_without(customer_id, letter.data))
        )


def _without(customer_id: str, data: bytes) -> bytes:
    try:
        body = AuditRecorded.FromString(data)
    except DecodeError:
        # Nobody can ever take it, so that nothing is lost with what it said.
        return b""
    if body.actor.type == actor_pb2.ACTOR_TYPE_CUSTOMER and body.actor.id == customer_id:
        body.actor.CopyFrom(actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id=NOBODY))
    return body.SerializeToString(deterministic=True)
