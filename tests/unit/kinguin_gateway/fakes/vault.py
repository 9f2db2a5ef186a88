"""A vault that remembers."""

from kinguin_gateway.ports.vault import KeyToSeal, Sealed, Unsealable

from tests.unit.kinguin_gateway.fakes.samples import Step, no_trouble


class FakeVault:
    """Seals by `source_ref`, once for ever."""

    def __init__(self) -> None:
        self.step: Step = no_trouble
        self.sealed: dict[str, tuple[KeyToSeal, bytes]] = {}
        self.calls: list[str] = []
        self.held: set[bytes] = set()

    async def seal(self, key: KeyToSeal) -> Sealed:
        self.calls.append(key.source_ref)
        await self.step(key.source_ref)
        value = key.value.expose()
        known = self.sealed.setdefault(key.source_ref, (key, value))
        if known[1] != value:
            raise Unsealable("on purpose")
        return Sealed(f"key-of-{key.source_ref}", held=value in self.held)
