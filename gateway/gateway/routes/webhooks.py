"""The supplier's webhooks: taken in milliseconds, or sent back so that they come again."""

import structlog
from chassis.errors import FieldViolation
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.gate import address_of
from gateway.domain.webhook import MalformedWebhook, NoNews, read_webhook, secret_matches, signature_matches
from gateway.edge import Edge, edge_of
from gateway.errors import MalformedBody, WebhookRefused
from gateway.metrics import WEBHOOK_LAST_TAKEN, WEBHOOKS
from gateway.schema import problems
from gateway.webhook_schema import WEBHOOK_OPERATION

logger = structlog.get_logger(__name__)

router = APIRouter(tags=["webhooks"])

MAXIMUM_LOGGED_NAME = 64


@router.post(
    "/webhooks/kinguin",
    status_code=204,
    response_class=Response,
    summary="Take a webhook of the supplier",
    response_description="Taken.",
    responses=problems(400, 401, 408, 413),
    openapi_extra=WEBHOOK_OPERATION,
)
async def take_kinguin_webhook(request: Request) -> Response:
    """Answer 204 once the hint is stored, and for what tells us nothing. The content type is ignored.

    Neither good nor forged ones are limited: the supplier floods, and a forged one is 401 however many there are.
    """
    edge = edge_of(request)
    body = await request.body()
    if not _is_proven(edge, request, body):
        await _tell_refused(edge, request)
        raise WebhookRefused("the webhook's secret or signature is missing or wrong")
    try:
        news = read_webhook(request.headers.get("x-event-name"), body)
    except MalformedWebhook as fault:
        WEBHOOKS.labels("malformed").inc()
        raise MalformedBody(
            f"{fault.field}: {fault.description}", field_violations=[FieldViolation(fault.field, fault.description)]
        ) from None
    if isinstance(news, NoNews):
        WEBHOOKS.labels(news.value).inc()
        name = request.headers.get("x-event-name", "")[:MAXIMUM_LOGGED_NAME]
        logger.info("webhook without news", kind=news.value, event_name=name)
    else:
        await edge.webhooks.publish(news)
        WEBHOOKS.labels("stored").inc()
        WEBHOOK_LAST_TAKEN.set(edge.clock.now().timestamp())
        request.scope["routine"] = True
    return Response(status_code=204)


async def _tell_refused(edge: Edge, request: Request) -> None:
    """Count a forged webhook, also for the audit log, and log where it came from as often as the limit allows."""
    WEBHOOKS.labels("refused").inc()
    address = address_of(request)
    edge.teller.refused("webhook.refused", address)
    if (await edge.limiter.take("refused_webhook", address)).allowed:
        logger.warning("webhook refused", address=address)


def _is_proven(edge: Edge, request: Request, body: bytes) -> bool:
    proofs = edge.webhook_proofs
    proven = secret_matches(request.headers.get("x-event-secret"), proofs.event_secrets)
    if proofs.signature_secrets:
        header = request.headers.get("x-kinguin-signature")
        now = edge.clock.now().timestamp()
        proven &= signature_matches(header, body, proofs.signature_secrets, now)
    return proven
