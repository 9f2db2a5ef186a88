"""What OpenAPI says of the supplier's webhooks, in the supplier's own form.

Nothing is read with it: the route takes the raw body, because the proof is over the bytes and the content type may be
misspelt (K54).
"""

from collections.abc import Mapping
from typing import Any

EVENT_SECRET_SCHEME: Mapping[str, Any] = {
    "type": "apiKey",
    "in": "header",
    "name": "X-Event-Secret",
    "description": "The secret that was agreed with the supplier.",
}

_Schema = Mapping[str, Any]


def _word(*examples: str) -> _Schema:
    return {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$", "examples": list(examples)}


def _event(name: str, required: _Schema, optional: _Schema) -> _Schema:
    moment = {**_word("2026-11-23T11:24:08.025+00:00"), "maxLength": 64, "description": "Passed on as it is written."}
    return {
        "title": name,
        "type": "object",
        "required": [*required, "updatedAt"],
        "properties": {**required, **optional, "updatedAt": moment},
    }


_REFERENCE: _Schema = {"type": ["string", "null"], "description": "Our reference; others' are left out."}
_BODY: _Schema = {
    "anyOf": [
        _event(
            "order.status",
            {"orderId": _word("PHS84FJAG5U"), "status": _word("completed")},
            {"orderExternalId": _REFERENCE},
        ),
        _event(
            "order.complete",
            {"orderId": _word("PHS84FJAG5U")},
            {"orderExternalId": _REFERENCE, "status": _word("completed")},
        ),
        _event(
            "product.update", {"kinguinId": {"type": "integer"}, "productId": _word("5c9b5f6b2539a4e8f172916a")}, {}
        ),
        {"title": "Anything", "description": "The dashboard's probe, or an event that we have no use for."},
    ]
}

#: What the route adds to its operation.
WEBHOOK_OPERATION: dict[str, Any] = {
    "security": [{"eventSecret": []}],
    "parameters": [
        {
            "name": "X-Event-Name",
            "in": "header",
            "schema": {"type": "string"},
            "description": "order.status, order.complete or product.update; the body is the one of that title.",
        },
        {
            "name": "X-Kinguin-Signature",
            "in": "header",
            "schema": {"type": "string"},
            "description": 'Where it is agreed: t=<unix seconds>,v1=<hex HMAC-SHA256 of t + "." + body>.',
        },
    ],
    "requestBody": {"content": {"application/json": {"schema": _BODY}}},
}
