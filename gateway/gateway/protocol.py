"""HTTP/1.1 as uvicorn speaks it, with a bound on what comes before a request's body.

Uvicorn collects a request's head for as long and as large as a client likes. What follows is bounded by the envelope.
"""

import asyncio
from asyncio import TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A token of 8 KiB and a few cookies fit several times.
MAXIMUM_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on a head that is too long, or that is not there in time: from the connection on, then from its start.

    Bytes are counted as they come in, so a head may be longer by what one read of the socket takes.
    """

    _overdue: TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        """Expect a request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless a head has grown too long."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr] # None until the first
            # Empty lines before a request end the keep-alive's own timer and begin nothing.
            self._expect_head()
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAXIMUM_HEAD_BYTES:
                self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Leave the rest to the envelope."""
        self._in_head = False
        self._head_is_here()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_is_here(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
