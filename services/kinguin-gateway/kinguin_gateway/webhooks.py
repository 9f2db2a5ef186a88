"""What an operator does with webhooks: looks at them, and takes one again."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.paging import read_page_token, write_page_token

from kinguin_gateway.domain.webhook import Webhook
from kinguin_gateway.errors import WebhookUnknown
from kinguin_gateway.places import read_moment, read_uuid
from kinguin_gateway.ports.webhooks import ReplayOrder, WebhookFilter, Webhooks


@dataclass(frozen=True, slots=True)
class WebhookPage:
    """Some webhooks, and the token of the next page; empty on the last one."""

    webhooks: Sequence[Webhook]
    next_page_token: str


class WebhookDesk:
    """Lists and replays webhooks."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def page(self, wanted: WebhookFilter, *, size: int, token: str) -> WebhookPage:
        """Return one page, the newest first. Raises InvalidRequest for a token of another listing."""
        filters = (wanted.event_name, wanted.supplier_order_id, wanted.external_id, wanted.outcome or "")
        place = read_page_token(filters, token, parts=2)
        before = None if place is None else (read_moment(place[0]), read_uuid(place[1]))
        found = await self._webhooks.page(wanted, size=size + 1, before=before)
        shown = found[:size]
        last = [shown[-1].receipt.receive_time.isoformat(), shown[-1].webhook_id] if len(found) > size else None
        return WebhookPage(shown, "" if last is None else write_page_token(filters, last))

    async def replay(self, order: ReplayOrder) -> Webhook:
        """Take a webhook again, and return it with what came of it. Raises WebhookUnknown."""
        webhook = await self._webhooks.replay(order)
        if webhook is None:
            raise WebhookUnknown("no webhook of this name is kept", metadata={"webhook_id": order.webhook_id})
        return webhook
