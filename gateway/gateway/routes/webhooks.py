"""The supplier's webhooks: taken in milliseconds, or sent back so that they come again."""

from chassis.errors import FieldViolation
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.gate import address_of, count
from gateway.domain.webhook import MalformedWebhook, read_webhook, secret_matches, signature_matches
from gateway.edge import Edge, edge_of
from gateway.errors import MalformedBody, WebhookRefused
from gateway.metrics import WEBHOOKS
from gateway.schema import problems

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/kinguin",
    status_code=204,
    response_class=Response,
    summary="Take a webhook of the supplier",
    response_description="Taken.",
    responses=problems(400, 401, 413),
    openapi_extra={
        "parameters": [
            {
                "name": "X-Event-Name",
                "in": "header",
                "schema": {"type": "string"},
                "description": "order.status or product.update",
            },
            {"name": "X-Event-Secret", "in": "header", "schema": {"type": "string"}, "required": True},
        ],
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    },
)
async def take_kinguin_webhook(request: Request) -> Response:
    """Answer 204 once the hint is stored, and for events that tell us nothing. The content type is ignored."""
    edge = edge_of(request)
    body = await request.body()
    if not _is_proven(edge, request, body):
        WEBHOOKS.labels("refused").inc()
        await count(request, "refused_webhook", address_of(request))
        raise WebhookRefused("the webhook's secret or signature is missing or wrong")
    try:
        hint = read_webhook(request.headers.get("x-event-name"), body)
    except MalformedWebhook as fault:
        WEBHOOKS.labels("malformed").inc()
        raise MalformedBody(
            f"{fault.field}: {fault.description}", field_violations=[FieldViolation(fault.field, fault.description)]
        ) from None
    if hint is None:
        WEBHOOKS.labels("ignored").inc()
    else:
        await edge.webhooks.publish(hint)
        WEBHOOKS.labels("stored").inc()
    return Response(status_code=204)


def _is_proven(edge: Edge, request: Request, body: bytes) -> bool:
    proofs = edge.webhook_proofs
    proven = secret_matches(request.headers.get("x-event-secret"), proofs.event_secrets)
    if proofs.signature_secrets:
        header = request.headers.get("x-kinguin-signature")
        now = edge.clock.now().timestamp()
        proven &= signature_matches(header, body, proofs.signature_secrets, now)
    return proven
