"""Generation with a key-value cache: a graph that keeps the cache as its own state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.backends.openvino.compiling import compile_program, constant_bytes
from pytest_hfaccel.backends.openvino.compression import INT8
from pytest_hfaccel.backends.openvino.converted import ConvertedModels, conversion_key
from pytest_hfaccel.backends.openvino.export import export_decoder
from pytest_hfaccel.backends.openvino.requests import open_request
from pytest_hfaccel.backends.openvino.shapes import widened

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import ModelSource
    from pytest_hfaccel.core.spec import Device

TASK = "text-generation"
"""The task whose models get such a graph: those whose only input is text."""


class CachedDecoder:
    """Decodes greedily, one token per step after the prompt.

    Args:
        source: The checkpoint.
        device: The device.
        dtype: The precision to compute at.
        with_mask: Whether prompts are padded, so that the graph needs the attention mask.
    """

    def __init__(self, source: ModelSource, device: Device, dtype: str, *, with_mask: bool) -> None:
        self.timings: dict[str, float] = {"convert": 0.0}
        key = conversion_key(source.fingerprint, f"decoder with{'' if with_mask else 'out'} mask")
        store = ConvertedModels(source.cache_dir / "openvino")
        started = time.perf_counter()
        if not store.has(key):
            store.make(key, lambda: export_decoder(source.torch_model("fp32"), _examples(source, with_mask)))
            self.timings["convert"] = time.perf_counter() - started
        if dtype == INT8:
            key = store.make_compressed(key, source.spec.architecture)
            self.timings["convert"] = time.perf_counter() - started
        program = store.read(key).program
        started = time.perf_counter()
        self._compiled = compile_program(program, device, dtype, source.spec.architecture)
        self.timings["compile"] = time.perf_counter() - started
        self.nbytes = constant_bytes(program)

    def generate(self, inputs: Mapping[str, torch.Tensor], max_new_tokens: int) -> torch.Tensor:
        """Return the new token ids, int64 of shape (batch, max_new_tokens).

        Args:
            inputs: `input_ids` and, for padded prompts, `attention_mask`, both of shape (batch, tokens).
            max_new_tokens: Number of tokens to generate.
        """
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids))
        names = {name for port in self._compiled.inputs for name in port.get_names()}
        request = open_request(self._compiled)  # its state, the cache, is empty
        new = []
        for _ in range(max_new_tokens):
            found = request.infer({name: value for name, value in _feed(ids, mask).items() if name in names})
            ids = _argmax(found)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            new.append(ids)
        return torch.cat(new, dim=1)


def _examples(source: ModelSource, with_mask: bool) -> dict[str, torch.Tensor]:
    """Return prompts to trace with; padded on the left if the graph is to take a mask."""
    sample = source.sample()
    ids = widened({"input_ids": (sample.generate or sample.forward)["input_ids"]}, fixed_batch=False)["input_ids"]
    mask = torch.ones_like(ids)
    if with_mask:
        mask[0, 0] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _feed(ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """Return the graph's inputs for the last `ids.shape[1]` of the tokens that `mask` covers."""
    # Positions count real tokens, as transformers' generate counts them.
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return {
        "input_ids": ids.numpy(),
        "attention_mask": mask.numpy(),
        "position_ids": positions.numpy(),
        "beam_idx": torch.arange(ids.shape[0], dtype=torch.int32).numpy(),
    }


def _argmax(outputs: Any) -> torch.Tensor:
    logits = next(value for port, value in outputs.items() if "logits" in port.get_names())
    return torch.from_numpy(logits[:, -1].argmax(-1))[:, None]
