"""Values computed once and shared by all who ask."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.pool.entry import key_text


class SharedValues:
    """A dictionary whose values are computed by the first who asks, while the others wait.

    An error reaches everybody who waited for that computation and is then forgotten: who asks later starts anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, tuple[Future[Any], int]] = {}
        self._computed: Counter[str] = Counter()
        self._reused = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of `key`; `make` is called with no lock held, and may ask for other keys.

        Raises:
            HfAccelError: `make` asked for the very key it is to make.
        """
        me = threading.get_ident()
        with self._lock:
            future, maker = self._values.setdefault(key, (Future(), me))
            mine = not future.running() and not future.done()
            if mine:
                future.set_running_or_notify_cancel()
            else:
                self._reused += 1
        if mine:
            return self._make(key, make, future)
        if maker == me and not future.done():
            raise HfAccelError(f"making {key_text(key)!r} asks for {key_text(key)!r} itself")
        return future.result()

    def _make(self, key: Hashable, make: Callable[[], Any], future: Future[Any]) -> Any:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                self._values.pop(key, None)
            future.set_exception(error)
            raise
        with self._lock:
            self._computed[key_text(key)] += 1
        future.set_result(value)
        return value

    def forget(self, key: Hashable) -> None:
        """Forget a value, if it has been computed; who asks again computes it again."""
        with self._lock:
            future, _ = self._values.get(key, (None, 0))
            if future is not None and future.done():
                del self._values[key]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()

    def stats(self) -> dict[str, Any]:
        """How often a value was reused, and how often each was computed."""
        with self._lock:
            return {"reused": self._reused, "computed_by_key": dict(sorted(self._computed.items()))}
