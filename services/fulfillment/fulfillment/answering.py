"""Answers each request once: what it did and what it was answered are one transaction, and a repeat is given that."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from chassis.request_log import request_digest
from google.protobuf.message import Message

R = TypeVar("R", bound=Message)


class Answers(Protocol):
    """A transaction that knows earlier answers."""

    async def earlier_answer(self, request_id: str, digest: bytes, response_class: type[R]) -> R | None:
        """Return the answer that this request got before. Raises RequestIdReused."""
        ...

    async def keep_answer(self, request_id: str, digest: bytes, response: Message) -> None:
        """Keep the answer for a repeat of this request."""
        ...


async def earlier(answers: Answers, request_id: str, request: Message, response_class: type[R]) -> R | None:
    """Return what a request was answered before: for those who must know it before they ask somebody else."""
    return await answers.earlier_answer(request_id, request_digest(request), response_class)


async def once(
    answers: Answers, request_id: str, request: Message, response_class: type[R], act: Callable[[], Awaitable[R]]
) -> R:
    """Act and keep the answer, unless there is one. Raises RequestIdReused."""
    digest = request_digest(request)
    known = await answers.earlier_answer(request_id, digest, response_class)
    if known is not None:
        return known
    response = await act()
    await answers.keep_answer(request_id, digest, response)
    return response
