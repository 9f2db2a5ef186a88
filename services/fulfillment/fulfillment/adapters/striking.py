"""Removes a customer from messages that are kept: from events, from answers, and from what could not be handled."""

from collections.abc import Iterable

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from keyferry.events.v1.payment_events_pb2 import PaymentConfirmed
from keyferry.fulfillment.v1.fulfillment_pb2 import Customer
from keyferry.type.v1 import actor_pb2


def struck(data: bytes, type_name: str, customer_id: str, pseudonym: str) -> bytes | None:
    """Return a message without a customer; the same bytes where it does not name them, None where it is unreadable."""
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(type_name)
        message = message_factory.GetMessageClass(descriptor).FromString(data)
    except (KeyError, DecodeError):
        return None
    found = _strike(message, customer_id, pseudonym)
    if found and isinstance(message, PaymentConfirmed):
        # Taken without its owner, the order would have keys bought for nobody. The payment waits for a person instead.
        message.ClearField("order")
    return message.SerializeToString(deterministic=True) if found else data


def _strike(message: Message, customer_id: str, pseudonym: str) -> bool:
    if isinstance(message, Customer) and message.customer_id == customer_id:
        message.CopyFrom(Customer(customer_id=pseudonym))
        return True
    if isinstance(message, actor_pb2.Actor):
        is_theirs = message.type == actor_pb2.ACTOR_TYPE_CUSTOMER and message.id == customer_id
        if is_theirs:
            message.CopyFrom(actor_pb2.Actor(type=message.type, id=pseudonym))
        return is_theirs
    return sum([_strike(part, customer_id, pseudonym) for part in _parts(message)]) > 0


def _parts(message: Message) -> Iterable[Message]:
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from value if field.is_repeated else (value,)
