"""Puts the routes together into one ASGI application."""

from chassis.errors import KeyferryError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import problem
from gateway.edge import Edge
from gateway.envelope import Envelope
from gateway.routes import orders, pages, session, static, webhooks
from gateway.routes.docs import docs_router
from gateway.schema import ProblemModel

_DESCRIPTION = (
    "Follow your orders and open your keys. Send a bearer token of the login service; every answer is JSON, "
    "every error application/problem+json with a stable reason."
)


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
            }
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    if path.startswith("/v1"):
                        operation["security"] = [{"bearer": []}]
            self.openapi_schema = document
        return self.openapi_schema


def create_app(edge: Edge) -> ASGIApp:
    """Return the application with everything around it."""
    app = _Application(title="Keyferry", version="1.0.0", docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in (webhooks.router, orders.router, pages.router, session.router, static.router, docs_router(app)):
        app.include_router(router)
    app.add_exception_handler(KeyferryError, problem.keyferry_error)
    app.add_exception_handler(RequestValidationError, problem.validation_error)
    app.add_exception_handler(HTTPException, problem.http_error)
    app.add_exception_handler(Exception, problem.unexpected_error)
    return Envelope(app, edge)
