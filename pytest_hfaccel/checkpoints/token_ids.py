"""Special token ids that do not fit into a tiny vocabulary get ids that do."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.rules import SPECIAL_IDS, VOCABULARY


class TokenIds:
    """Maps special token ids, the same everywhere in one config: an image token stays one token."""

    def __init__(self) -> None:
        self._mapped: dict[int, int] = {}

    def small(self, token_id: int) -> int:
        """Return the id itself where it fits (or is a negative marker), else one from the top of the vocabulary."""
        if token_id < VOCABULARY - SPECIAL_IDS:
            return token_id
        return self._mapped.setdefault(token_id, VOCABULARY - 1 - len(self._mapped))
