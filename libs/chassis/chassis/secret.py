"""A type for bytes that must not be printed, logged, pickled or compared carelessly."""

import hmac
from types import TracebackType
from typing import Never, Self


class SecretBytes:
    """Holds bytes and gives them only to who calls `expose`.

    Anything else that could carry them away says `<redacted>` or refuses. Python cannot promise to wipe memory: `drop`
    forgets the reference, so that the bytes are freed as soon as nobody else holds them. As a context manager it is
    dropped at the end of the block, also when that raises: the traceback then holds an empty secret.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value: bytes | None = bytes(value)

    def expose(self) -> bytes:
        """Return the bytes. The only way to them; every call of it is worth a look in review."""
        if self._value is None:
            raise ValueError("the secret was dropped")
        return self._value

    def drop(self) -> None:
        """Forget the bytes; exposing them afterwards raises ValueError."""
        self._value = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()

    def __len__(self) -> int:
        return len(self.expose())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretBytes) and hmac.compare_digest(self.expose(), other.expose())

    __hash__ = None  # type: ignore[assignment] # a set or a dict key would keep it alive and comparable

    def __repr__(self) -> str:
        return "<redacted>"

    def __format__(self, spec: str) -> str:
        return "<redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not pickled")

    def __copy__(self) -> "SecretBytes":
        return self

    def __deepcopy__(self, memo: object) -> "SecretBytes":
        return self
