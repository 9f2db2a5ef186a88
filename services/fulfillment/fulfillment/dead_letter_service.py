"""The part of FulfillmentAdminService that shows events which could not be handled, and handles them again."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from chassis.dead_letters import DeadLetter, DeadLetterDesk
from chassis.errors import InvalidRequest
from chassis.paging import page_size, read_page_token, write_page_token
from chassis.validation import Faults
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfillment import facts
from fulfillment.answering import earlier, once
from fulfillment.consumer import Within
from fulfillment.convert_admin import check_actor
from fulfillment.facts import timestamp
from fulfillment.ports.orders import Orders, OrderTransaction
from fulfillment.service import Context

DEFAULT_PAGE = 20
LARGEST_PAGE = 100


class DeadLetterMethods:
    """Serves dead letters."""

    _orders: Orders
    _desk: DeadLetterDesk
    _within: Within

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """List dead letters, newest first."""
        size = page_size(request.page_size, default=DEFAULT_PAGE, largest=LARGEST_PAGE)
        filters = (str(request.replayed),)
        place = read_page_token(filters, request.page_token, parts=2)
        found = await self._desk.page(
            replayed=request.replayed, size=size + 1, after=None if place is None else _read_place(*place)
        )
        shown = found[:size]
        return pb.ListDeadLettersResponse(
            dead_letters=[_letter_to_proto(letter) for letter in shown],
            next_page_token=_token_after(shown[-1], filters) if len(found) > size else "",
        )

    async def ReplayDeadLetter(  # noqa: N802 # named by gRPC
        self,
        request: pb.ReplayDeadLetterRequest,
        context: Context,  # noqa: ARG002 # passed by gRPC
    ) -> pb.ReplayDeadLetterResponse:
        """Handle a dead letter again."""
        faults = Faults()
        request_id = _checked(request, faults)
        try:
            letter_id = uuid.UUID(request.dead_letter_id)
        except ValueError:
            letter_id = uuid.UUID(int=0)
            faults.add("dead_letter_id", "must be the UUID of a dead letter")
        faults.raise_if_any()
        async with self._orders.transaction() as transaction:
            known = await earlier(transaction, request_id, request, pb.ReplayDeadLetterResponse)
        if known is not None:
            return known

        async def keep(letter: DeadLetter, connection: AsyncConnection) -> None:
            within = self._within(connection)

            async def note() -> pb.ReplayDeadLetterResponse:
                details = {"consumer": letter.consumer, "event_id": letter.event_id}
                now = letter.replay_time or letter.create_time
                await _record(within, "dead_letter.replayed", request, now=now, details=details)
                return pb.ReplayDeadLetterResponse(dead_letter=_letter_to_proto(letter))

            await once(within, request_id, request, pb.ReplayDeadLetterResponse, note)

        letter = await self._desk.replay(letter_id, with_it=keep)
        return pb.ReplayDeadLetterResponse(dead_letter=_letter_to_proto(letter))

    async def ResumeConsumer(self, request: pb.ResumeConsumerRequest, context: Context) -> pb.ResumeConsumerResponse:  # noqa: N802, ARG002 # named and called by gRPC
        """Let a stopped consumer go on."""
        faults = Faults()
        request_id = _checked(request, faults)
        faults.require("consumer", request.consumer)
        faults.raise_if_any()
        async with self._orders.transaction() as transaction:
            known = await earlier(transaction, request_id, request, pb.ResumeConsumerResponse)
        if known is not None:
            return known
        # Dies here: nothing was told, and the request is repeated. Resuming twice is resuming once.
        await self._desk.resume(request.consumer)
        async with self._orders.transaction("resume") as transaction:

            async def note() -> pb.ResumeConsumerResponse:
                details = {"consumer": request.consumer}
                await _record(transaction, "consumer.resumed", request, now=datetime.now(UTC), details=details)
                return pb.ResumeConsumerResponse()

            return await once(transaction, request_id, request, pb.ResumeConsumerResponse, note)


async def _record(
    transaction: OrderTransaction,
    action: str,
    request: pb.ReplayDeadLetterRequest | pb.ResumeConsumerRequest,
    *,
    now: datetime,
    details: dict[str, str],
) -> None:
    told = {**details, "reason": request.reason}
    identity = [str(uuid.UUID(request.request_id))]
    await facts.record(transaction, action, "", now=now, identity=identity, actor=request.actor, details=told)


def _checked(request: pb.ReplayDeadLetterRequest | pb.ResumeConsumerRequest, faults: Faults) -> str:
    check_actor(request.actor, faults)
    faults.require("reason", request.reason)
    return faults.request_id(request.request_id)


def _letter_to_proto(letter: DeadLetter) -> pb.DeadLetter:
    message = pb.DeadLetter(
        dead_letter_id=str(letter.dead_letter_id),
        consumer=letter.consumer,
        event_id=letter.event_id,
        event_type=letter.type_name,
        subject=letter.subject,
        failure=letter.reason,
        deliveries=letter.deliveries,
        create_time=timestamp(letter.create_time),
    )
    if letter.replay_time is not None:
        message.replay_time.CopyFrom(timestamp(letter.replay_time))
    return message


def _token_after(last: DeadLetter, filters: Sequence[str]) -> str:
    return write_page_token(filters, [last.create_time.isoformat(), str(last.dead_letter_id)])


def _read_place(time: str, letter_id: str) -> tuple[datetime, uuid.UUID]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC), uuid.UUID(letter_id)
    except (ValueError, OverflowError):
        raise InvalidRequest.of("page_token", "must be the next_page_token of the page before") from None
