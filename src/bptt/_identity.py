"""What is known of objects, by which object it is: a class of the user's may say that two of its
objects are equal, and they are two cells all the same."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class ByIdentity(Generic[V]):
    """A dictionary of objects, none of which it keeps alive."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Any], V]] = {}

    def get(self, key: object) -> V | None:
        """What is known of an object."""
        found = self._found.get(id(key))
        return found[1] if found is not None and found[0]() is key else None

    def __setitem__(self, key: object, value: V) -> None:
        """Know something of an object; TypeError if it has no weak references."""
        place, held = id(key), self._found

        def forget(reference: weakref.ref[Any]) -> None:
            found = held.get(place)
            if found is not None and found[0] is reference:
                del held[place]

        held[place] = weakref.ref(key, forget), value

    def setdefault(self, key: object, value: V) -> V:
        """What is known of an object; ``value`` from now on if that is nothing."""
        found = self.get(key)
        if found is None:
            self[key] = found = value
        return found

    def __len__(self) -> int:
        """Of how many objects something is known."""
        return len(self._found)

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
