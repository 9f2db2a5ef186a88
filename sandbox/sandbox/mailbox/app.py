"""The pages that show mail, the same as JSON, and the control of the server's behaviour."""

import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from sandbox.mailbox.behavior import Behavior, Mode
from sandbox.mailbox.store import Mailstore, Message
from sandbox.web import SafeHeaders, Templates, common_routes

# The message is a stranger's: it may show itself and nothing else. Links open in a tab of their own.
_MESSAGE_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
)


class Mailbox:
    """The HTTP side of the mailbox."""

    def __init__(self, store: Mailstore, behavior: Behavior) -> None:
        self._store = store
        self._behavior = behavior
        self._templates = Templates(Path(__file__).parent / "templates")

    def application(self) -> Starlette:
        """Return the web application."""
        return Starlette(
            routes=[
                Route("/", self.show_list),
                Route("/mail/{message_id}", self.show_message),
                Route("/mail/{message_id}/html", self.show_html),
                Route("/messages", self.list_messages, methods=["GET"]),
                Route("/messages", self.clear, methods=["DELETE"]),
                Route("/messages/{message_id}", self.get_message),
                Route("/control", self.get_behavior, methods=["GET"]),
                Route("/control", self.set_behavior, methods=["POST"]),
                *common_routes(),
            ],
            middleware=[Middleware(SafeHeaders)],
        )

    def show_list(self, _request: Request) -> Response:
        """Show all messages."""
        return self._templates.page("list.html", messages=self._store.list())

    def show_message(self, request: Request) -> Response:
        """Show one message."""
        message = self._find(request)
        headers = "\n".join(f"{name}: {value}" for name, value in message.content.items())
        return self._templates.page("message.html", message=message, source=headers)

    def show_html(self, request: Request) -> Response:
        """Show the HTML part alone, as far as it cannot do anything."""
        message = self._find(request)
        return HTMLResponse(
            f'<base target="_blank">{message.html}', headers={"content-security-policy": _MESSAGE_POLICY}
        )

    def list_messages(self, _request: Request) -> Response:
        """Return all messages without their parts, the newest first."""
        return JSONResponse([_summary(message) for message in self._store.list()])

    def get_message(self, request: Request) -> Response:
        """Return one message."""
        message = self._find(request)
        headers = [[name, str(value)] for name, value in message.content.items()]
        return JSONResponse({**_summary(message), "headers": headers, "text": message.text, "html": message.html})

    def clear(self, _request: Request) -> Response:
        """Remove all messages."""
        return JSONResponse({"removed": self._store.clear()})

    def get_behavior(self, _request: Request) -> Response:
        """Tell the present mode."""
        return JSONResponse({"mode": self._behavior.mode, "count": self._behavior.remaining})

    async def set_behavior(self, request: Request) -> Response:
        """Set the mode: `{"mode": "defer", "count": 3}`; without a count it stays so."""
        try:
            wish = json.loads(await request.body())
            count = wish.get("count")
            self._behavior.set(Mode(wish["mode"]), None if count is None else max(1, int(count)))
        except (ValueError, KeyError, TypeError, AttributeError):
            modes = ", ".join(Mode)
            raise HTTPException(400, f"mode must be one of {modes}; count a number or absent") from None
        return self.get_behavior(request)

    def _find(self, request: Request) -> Message:
        message = self._store.get(request.path_params["message_id"])
        if message is None:
            raise HTTPException(404, "there is no such message")
        return message


def _summary(message: Message) -> dict[str, Any]:
    return {
        "id": message.message_id,
        "time": message.received.isoformat().replace("+00:00", "Z"),
        "from": message.sender,
        "to": list(message.recipients),
        "subject": message.subject,
        "message_id": str(message.content.get("Message-ID", "")),
    }
