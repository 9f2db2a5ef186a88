"""Puts the routes together into one ASGI application."""

from typing import Any

from chassis.errors import KeyferryError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import problem
from gateway.edge import Edge
from gateway.envelope import Envelope
from gateway.routes import audit, orders, pages, session, static, webhooks
from gateway.routes.docs import docs_router
from gateway.schema import ProblemModel
from gateway.webhook_schema import EVENT_SECRET_SCHEME

_DESCRIPTION = (
    "Follow your orders and open your keys. Send a bearer token of the login service; every answer is JSON, "
    "every error application/problem+json with a stable reason."
)
# FastAPI's own spans would carry paths and queries, a login's code among them, and hang under a stranger's traceparent;
# its log records carry the text of exceptions. The envelope has the one span that is wanted.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


class _Application(FastAPI):
    """FastAPI with our own OpenAPI document: the one error form in, FastAPI's default one out."""

    def openapi(self) -> dict[str, object]:
        """Return the document, made once."""
        if self.openapi_schema is None:
            document = get_openapi(title=self.title, version=self.version, description=_DESCRIPTION, routes=self.routes)
            schemas = document["components"]["schemas"]
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            problem_schema = ProblemModel.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem_schema.pop("$defs", {}))
            schemas["ProblemModel"] = problem_schema
            document["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "eventSecret": EVENT_SECRET_SCHEME,
            }
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    for parameter in operation.get("parameters", ()):
                        _without_null(parameter)
                    if path.startswith("/v1") and path != audit.CHECKPOINT:
                        operation["security"] = [{"bearer": []}]
            self.openapi_schema = document
        return self.openapi_schema


def _without_null(parameter: dict[str, Any]) -> None:
    """Take null out of an optional parameter's schema: a header or query is there or not, and `null` is a text."""
    branches = parameter["schema"].pop("anyOf", [])
    for branch in branches:
        if branch != {"type": "null"}:
            parameter["schema"] |= branch


def create_app(edge: Edge) -> ASGIApp:
    """Return the application with everything around it."""
    app = _Application(
        title="Keyferry",
        version="1.0.0",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    for router in (
        webhooks.router,
        orders.router,
        audit.router,
        pages.router,
        session.router,
        static.router,
        docs_router(app),
    ):
        app.include_router(router)
    app.add_exception_handler(KeyferryError, problem.keyferry_error)
    app.add_exception_handler(RequestValidationError, problem.validation_error)
    app.add_exception_handler(HTTPException, problem.http_error)
    app.add_exception_handler(Exception, problem.unexpected_error)
    return Envelope(app, edge)
