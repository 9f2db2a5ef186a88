"""Vault, the one other place that ever sees a key."""

from dataclasses import dataclass
from typing import Protocol

from chassis.secret import SecretBytes


@dataclass(frozen=True, slots=True)
class KeyToSeal:
    """A key on its way to vault."""

    request_id: str
    source_ref: str
    order_id: str
    item_id: str
    customer_id: str
    content_type: str
    value: SecretBytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """How vault keeps a key."""

    key_id: str
    held: bool


class Unsealable(Exception):
    """Vault takes it for no key, has another one under this `source_ref`, or cannot open what it has begun there.

    Another one: the supplier delivered two as one. The text is a fixed sentence that says which of them it is.
    """


class Vault(Protocol):
    """Seals keys. The only place outside this process that ever receives one."""

    async def seal(self, key: KeyToSeal) -> Sealed:
        """Seal a key and return once it is safe; doing it again returns the same.

        Raises Unsealable, which asking again does not mend, and vault's own errors.
        """
        ...
