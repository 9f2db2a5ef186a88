"""A service at the other end of a channel: it answers what it was given to answer, in this sequence."""

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message


class Peer:
    """Stands where a stub expects a channel. Each request is kept as it went over the wire, with its deadline."""

    def __init__(self, *answers: Message | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[Message] = []
        self.deadlines: list[float | None] = []

    def unary_unary(self, _method: str, **_codec: object) -> Callable[..., Awaitable[Message]]:
        async def call(request: Message, *, timeout: float | None = None) -> Message:  # noqa: ASYNC109 # as gRPC has it
            self.requests.append(type(request).FromString(request.SerializeToString()))
            self.deadlines.append(timeout)
            answer = self._answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    unary_stream = unary_unary
