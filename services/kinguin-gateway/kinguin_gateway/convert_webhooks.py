"""Webhooks, between the contract and the domain."""

import uuid

from chassis.request_log import request_digest
from chassis.validation import Faults
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb

from kinguin_gateway.convert_switch import check_actor
from kinguin_gateway.domain.webhook import Webhook, WebhookOutcome
from kinguin_gateway.ports.webhooks import ReplayOrder, WebhookFilter
from kinguin_gateway.webhooks import WebhookPage

_OUTCOMES = {
    WebhookOutcome.HURRIED: pb.WEBHOOK_OUTCOME_HURRIED,
    WebhookOutcome.UNRELATED: pb.WEBHOOK_OUTCOME_UNRELATED,
    WebhookOutcome.STALE: pb.WEBHOOK_OUTCOME_STALE,
}
_OUTCOMES_FROM_PROTO = {number: outcome for outcome, number in _OUTCOMES.items()}


def webhook_filter_from_proto(request: pb.ListWebhooksRequest) -> WebhookFilter:
    """Return which webhooks are wanted. Raises InvalidRequest with every fault."""
    faults = Faults()
    for field in ("event_name", "supplier_order_id", "external_id"):
        if value := getattr(request, field):
            faults.require(field, value)
    if request.outcome and request.outcome not in _OUTCOMES_FROM_PROTO:
        faults.add("outcome", "must be an outcome of webhooks, or absent")
    faults.raise_if_any()
    outcome = _OUTCOMES_FROM_PROTO.get(request.outcome)
    return WebhookFilter(request.event_name, request.supplier_order_id, request.external_id, outcome)


def webhook_page_to_proto(page: WebhookPage) -> pb.ListWebhooksResponse:
    """Render a page of webhooks."""
    webhooks = [webhook_to_proto(webhook) for webhook in page.webhooks]
    return pb.ListWebhooksResponse(webhooks=webhooks, next_page_token=page.next_page_token)


def webhook_to_proto(webhook: Webhook) -> pb.Webhook:
    """Render a webhook."""
    receipt = webhook.receipt
    message = pb.Webhook(
        webhook_id=webhook.webhook_id,
        event_name=receipt.event_name,
        supplier_order_id=receipt.supplier_order_id,
        external_id=receipt.external_id,
        status=receipt.status,
        product_id=receipt.product_id,
        updated_at=receipt.updated_at,
        outcome=_OUTCOMES[webhook.outcome],
        body_sha256=receipt.body_sha256,
    )
    message.receive_time.FromDatetime(receipt.receive_time)
    if webhook.replay_time is not None:
        message.replay_time.FromDatetime(webhook.replay_time)
    return message


def replay_from_proto(request: pb.ReplayWebhookRequest) -> ReplayOrder:
    """Return which webhook is to be taken again. Raises InvalidRequest with every fault."""
    faults = Faults()
    request_id = faults.request_id(request.request_id)
    check_actor(faults, request.actor)
    try:
        webhook_id = str(uuid.UUID(request.webhook_id))
    except ValueError:
        faults.add("webhook_id", "must be the name of a webhook, a UUID")
        webhook_id = ""
    faults.raise_if_any()
    return ReplayOrder(request_id, request_digest(request), request.actor, webhook_id)
