"""Erasing: a person's key is destroyed in the transaction that appends the entry that says so.

Both happen or neither does. Appends take the same turn: one before it is under the old pseudonym, whose key is gone;
one after it makes a new person, for whoever comes back. An event that tells what happened before and is taken after it,
because it was on its way, is told of nobody: for as long as events are kept it is known who was forgotten when, as a
keyed digest.
"""

from dataclasses import dataclass, field

from chassis.errors import RequestIdReused

from audit.appending import append_drafts
from audit.domain.entry import Actor, ActorType, Appended, Draft
from audit.ports import Log, LogTransaction, PersonKeys

ACTION = "customer.erased"


@dataclass(frozen=True, slots=True)
class Erasure:
    """Who is to be forgotten, and who asks for it. The customer stands nowhere in the entry that is written."""

    request_id: str
    customer_id: str = field(repr=False)
    asked_by: Actor
    recorder: str
    event_append_id: str = ""
    """Names the append where an event asks for it; a call's is named by its request."""


async def erase_customer(log: Log, keys: PersonKeys, erasure: Erasure) -> Appended:
    """Forget a customer and return where the entry of it is; a repeat returns the first one's and forgets nobody.

    Raises RequestIdReused when the id was used for something else.
    """
    async with log.transaction() as transaction:
        return await erase_within(transaction, keys, erasure)


async def erase_within(transaction: LogTransaction, keys: PersonKeys, erasure: Erasure) -> Appended:
    """Do the same within a transaction that the caller commits."""
    lookups = keys.lookups(ActorType.CUSTOMER, erasure.customer_id)
    last, _ = await transaction.take_turn()
    before = -1 if last is None else last.sequence
    for lookup in lookups:
        # The body by which a repeat is known is kept hashed; the lookup is a keyed digest of the customer's id, so that
        # nobody without the secret learns by trying ids who was erased. The first time it was the active version's,
        # which may be a retained one by now.
        draft = Draft(
            append_id=erasure.event_append_id or erasure.request_id,
            told=b"\x1f".join((ACTION.encode(), lookup)),
            actor=erasure.asked_by,
            action=ACTION,
            recorder=erasure.recorder,
            request_id=erasure.request_id,
        )
        (result,) = await append_drafts(transaction, keys, [draft])
        if not isinstance(result, RequestIdReused):
            break
    if isinstance(result, RequestIdReused):
        raise result
    if result.sequence > before:
        await transaction.forget_person(lookups, told_at=result.sequence)
        await transaction.note_forgotten(lookups, time=result.time)
        await transaction.strike_from_dead_letters(erasure.customer_id)
    return result
