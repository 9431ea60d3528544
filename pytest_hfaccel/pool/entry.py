"""What the table of resources holds: requests for a resource, and entries for those that exist."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from pytest_hfaccel.core.spec import Device


@dataclass(frozen=True)
class Request:
    """How to get a resource that may exist already.

    Attributes:
        key: What makes two resources interchangeable.
        device: The device whose memory it takes.
        make: Makes it; called at most once at a time per key, and with no lock held.
        size: Bytes a made resource holds on the device.
        close: Frees a made resource.
        estimate: Bytes to reserve before `make` is called; asked only when the key was never made before.
        is_leased: Whether who asks keeps a lease. If not, the resource can be evicted as soon as it is made.
        is_move: Whether what the pool holds is moved here. Moves are counted apart, and do not wait for memory: they
            may happen while something else is made that others wait for.
    """

    key: Hashable
    device: Device
    make: Callable[[], Any]
    size: Callable[[Any], int]
    close: Callable[[Any], None]
    estimate: Callable[[], int]
    is_leased: bool = True
    is_move: bool = False


class State(Enum):
    """The life of an entry: made, used, freed. There is no way back."""

    LOADING = auto()
    READY = auto()
    CLOSING = auto()


@dataclass(eq=False)
class Entry:
    """One resource of the table. Every field but `request` and `outcome` changes under the table's lock only.

    Attributes:
        request: What it was made from.
        holders: Thread ids of those who lease it, one per lease; the first is the one that loads it.
        state: Where in its life it is.
        nbytes: Bytes reserved while loading, measured bytes from then on.
        outcome: The resource, or the error that making it ended with.
        last_used: When its last lease ended, in seconds of the monotonic clock.
    """

    request: Request
    holders: list[int] = field(default_factory=lambda: [threading.get_ident()])
    state: State = State.LOADING
    nbytes: int = 0
    outcome: Future[Any] = field(default_factory=Future)
    last_used: float = field(default_factory=time.monotonic)

    @property
    def is_idle(self) -> bool:
        """Whether it may be evicted."""
        return self.state is State.READY and not self.holders

    def to_json(self) -> dict[str, Any]:
        """Key, device, bytes, leases and state as plain JSON."""
        return {
            "key": self.name,
            "device": self.request.device.id,
            "bytes": self.nbytes,
            "leases": len(self.holders),
            "state": self.state.name.lower(),
        }

    @property
    def name(self) -> str:
        """The key as text, for messages and statistics."""
        return key_text(self.request.key)


def key_text(key: Hashable) -> str:
    """Return a key as text: the parts of a tuple separated by blanks, e.g. `gpt2 tiny cuda:0 fp16`."""
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
