"""Models in fp64, which the references are made with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.packages import packages_named
from pytest_hfaccel.checkpoints.reading import reading
from pytest_hfaccel.upstream.transformers import quiet

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint


class PlainlyLoaded:
    """A checkpoint whose models are those of a plain `from_pretrained`, for references.

    A reference that came by the same way as what is judged by it would share its faults. This way has nothing of ours
    in it but that transformers is silent.

    Another implementation of `pytest_hfaccel.backends.base.ModelSource`.

    Args:
        checkpoint: The checkpoint. It answers everything but `torch_model`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode; see `ModelSource.torch_model`."""
        source = self._checkpoint
        source.demand_fit()
        with packages_named(source.spec), reading(source.directory, allow_pickle=source.allow_pickle), quiet:
            model, info = self._loaded(dtype)
            if info["missing_keys"] and dtype != "fp32":
                # They are drawn, and in another dtype other numbers are.
                model = self._loaded("fp32")[0].to(model.dtype)
        if dtype == "fp64":
            # Tables of sines and the like keep the dtype in which their class computes them.
            model = with_plain_experts(model.double())
        return model.eval().requires_grad_(False).to(device)

    def _loaded(self, dtype: str) -> tuple[Any, dict[str, Any]]:
        import torch

        source = self._checkpoint
        with same_draws():
            model, info = source.model_class().from_pretrained(
                source.directory,
                dtype={"fp64": torch.float64, "fp32": torch.float32}[dtype],
                local_files_only=True,
                use_safetensors=None if source.allow_pickle else True,
                trust_remote_code=source.trust_remote_code,
                output_loading_info=True,
            )
        return model, info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoint, name)


@contextmanager
def same_draws() -> Iterator[None]:
    """Have torch draw the same numbers every time, for weights that a checkpoint lacks; its generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def with_plain_experts(model: Any) -> Any:
    """Have a mixture of experts compute one expert after the other, and return it.

    The products of groups that transformers chooses for it (`torch._grouped_mm`) do not know fp64.
    """
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model
