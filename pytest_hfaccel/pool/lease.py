"""The right to use a loaded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel


class Lease:
    """The right to use a loaded model until `release`; the pool keeps the model loaded that long.

    Args:
        loaded: The model.
        give_back: Tells the pool that the lease has ended.
    """

    def __init__(self, loaded: LoadedModel, give_back: Callable[[], None]) -> None:
        self._loaded: LoadedModel | None = loaded
        self._give_back: Callable[[], None] | None = give_back

    @property
    def loaded(self) -> LoadedModel:
        """The model.

        Raises:
            HfAccelError: The lease has ended.
        """
        if self._loaded is None:
            raise HfAccelError("this lease has been released; acquire the model again")
        return self._loaded

    def release(self) -> None:
        """End the lease. A second call does nothing."""
        give_back, self._give_back, self._loaded = self._give_back, None, None
        if give_back is not None:
            give_back()
