"""Cuts connections. HTTP servers answer every request; a supplier on a bad day does not."""

import socket
import struct

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TRANSPORT = "sandbox.transport"


class CuttableProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with the connection within the application's reach."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {_TRANSPORT: {"transport": self.transport}}


class Cut(Response):
    """No answer: the connection ends, with a reset (RST) where asked."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """End the connection and wait until it has ended, so that the server does not answer in our place."""
        if _TRANSPORT not in scope.get("extensions", {}):
            # Served without a socket, as tests do: an error is all that there is to cut.
            raise ConnectionResetError("the connection was cut")
        transport = scope["extensions"][_TRANSPORT]["transport"]
        if self._reset:
            # Lingering for no time at all makes the system send RST instead of FIN.
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass
