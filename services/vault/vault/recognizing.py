"""Notices an access that its owner is not known for, within the transaction of the release.

What an owner is known by is kept as keyed digests only, different for each owner: nobody who reads the database can
tell from where somebody came, or whether two came from the same place.
"""

from dataclasses import dataclass
from datetime import datetime

from vault.crypto import Digests
from vault.domain.familiarity import Kind, device_of, network_of, news_in, traits_of
from vault.domain.key import KeyRecord
from vault.ports import Authorization, KeyTransaction, Viewer

# Of each kind; who has more than these is met as a stranger now and then.
MOST_TRAITS = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """The coarse traits of one access, as the delivery log shows them."""

    network: str
    device: str


def seen(viewer: Viewer) -> Seen:
    """Return what the delivery log keeps of an access."""
    return Seen(network_of(viewer.ip_address), device_of(viewer.user_agent))


class Recognizer:
    """Knows owners by their accesses."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests

    async def meet(
        self,
        transaction: KeyTransaction,
        authorization: Authorization,
        record: KeyRecord,
        viewer: Viewer,
        *,
        now: datetime,
    ) -> frozenset[Kind]:
        """Note an access, tell of it where something about it is new, and return what is."""
        here = seen(viewer)
        traits = traits_of(country_code=viewer.country_code, network=here.network, device=here.device)
        spellings = {
            kind: self._digests.traits(viewer.customer_id, kind.value, trait) for kind, trait in traits.items()
        }
        owners = self._digests.owners(viewer.customer_id)
        news = news_in(spellings, await transaction.known_access(owners))
        active = {kind: digests[0] for kind, digests in spellings.items()}
        await transaction.know_access(owners[0], active, now=now, most=MOST_TRAITS)
        if news:
            await transaction.tell_unusual(authorization, record, news, now=now)
        return news
