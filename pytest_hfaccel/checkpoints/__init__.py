"""Where weights, tokenizers, processors and inputs come from.

Weights are chosen without importing torch (`choice`), a checkpoint is built or downloaded once (`store`), and what is
on disk is then loaded the way users load theirs (`checkpoint`).
"""

from __future__ import annotations

from pytest_hfaccel.checkpoints.checkpoint import Checkpoint
from pytest_hfaccel.checkpoints.store import CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore"]
