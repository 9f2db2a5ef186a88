"""How the mail server behaves: well, unless told otherwise."""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """What happens to a message."""

    ACCEPT = "accept"
    """It is kept and accepted."""
    REFUSE = "refuse"
    """It is refused for good (550)."""
    DEFER = "defer"
    """It is refused for now (451)."""
    DROP = "drop"
    """The connection ends without an answer, and it is not kept."""
    LOSE_ANSWER = "lose_answer"
    """It is kept, and the connection ends without an answer: the sender cannot know."""


@dataclass(slots=True)
class Behavior:
    """The present mode, and for how many messages it holds; None is until told otherwise."""

    mode: Mode = Mode.ACCEPT
    remaining: int | None = None

    def set(self, mode: Mode, count: int | None) -> None:
        """Behave so for this many messages, then well again."""
        self.mode = mode
        self.remaining = count

    def take(self) -> Mode:
        """Return what to do with the message at hand."""
        mode = self.mode
        if self.remaining is not None:
            self.remaining -= 1
            if self.remaining <= 0:
                self.set(Mode.ACCEPT, None)
        return mode
