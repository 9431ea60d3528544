"""Where weights, tokenizers, processors and inputs come from.

Weights are chosen without importing torch, and a checkpoint is built or downloaded once (`store`). What is on disk is
loaded the way users load theirs (`checkpoint`) and compared with its files (`described_model`).

- To build one: `configs` makes its config, `tokenizers` and `processors` what prepares its inputs, `build` its weights.
- Its inputs: `inputs` by task; `generic_inputs` from the signature of `forward`.
- What single model types need besides: `tables`, one file per modality.
- Pretrained weights: `pretrained`; whether files are sound: `integrity`; what tells checkpoints apart: `fingerprint`.
"""

from __future__ import annotations

from pytest_hfaccel.checkpoints.checkpoint import Checkpoint
from pytest_hfaccel.checkpoints.store import CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore"]
