"""The known defects: each with a name, where it is planted, how, and which checks must find it.

A defect is planted through what any backend, registry or user could hand in as well: the model a backend loads, the
files of a checkpoint, the registry of checks, the table of tolerances. Nothing inside a check is touched. A change that
finds nothing to change (no such weight, no such attribute) raises `NotPlanted`, so that a refactoring cannot turn a
defect into a right model without a word.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_hfaccel.checks import planted
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.spec import DEVICE_KINDS, Cell, ModelSpec

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, ModelSource, WeightChange

    Tensors = Mapping[str, torch.Tensor]
    Load = Callable[[Cell, ModelSource], LoadedModel]
    Loading = Callable[[Load, Cell, ModelSource], LoadedModel]

# One layer each: runtimes of graphs convert a model anew for every weight that is wrong, at a cost that grows with it.
BERT = ModelSpec("selftest-bert", "BertForMaskedLM", "fill-mask", dims={"num_hidden_layers": 1}, source="selftest")
GPT2 = ModelSpec("selftest-gpt2", "GPT2LMHeadModel", "text-generation", dims={"n_layer": 1}, source="selftest")

ANY = frozenset[str]()
"""Every kind of device."""


class NotPlanted(HfAccelError):
    """A defect had nothing to change, so it proves nothing: bring it up to date."""


@dataclass(frozen=True)
class Defect:
    """Something that is wrong, and must be found.

    Attributes:
        name: What is wrong.
        where: What it is planted in, in a word.
        caught_by: The checks that must fail; each of them.
        load: Loads the model with the defect, given how a right one is loaded.
        files: Edits a copy of the checkpoint's files instead.
        because: What the reason of the failure must say, where a check could fail for something else.
        model: The model it is planted in.
        kinds: Kinds of device on which it can be planted.
        level: `class` for a defect that the checks of the class must find.
    """

    name: str
    where: str
    caught_by: tuple[str, ...]
    load: Loading | None = None
    files: Callable[[Path], None] | None = None
    because: str = ""
    model: ModelSpec = BERT
    kinds: frozenset[str] = ANY
    level: str = "cell"

    @property
    def is_anywhere(self) -> bool:
        """Whether it is the same on every device: what is wrong with the files, or the class."""
        return self.load is None


def loaded_as(change: Callable[[LoadedModel], LoadedModel]) -> Loading:
    """Plant in the model that the backend has loaded."""
    return lambda load, cell, source: change(load(cell, source))


def read_as(change: Callable[[Any], None]) -> Loading:
    """Plant in the torch model that the backend gets, after the model was compared with the checkpoint's files."""

    def load(load: Load, cell: Cell, source: ModelSource) -> LoadedModel:
        def changed(dtype: str, device: str = "cpu") -> Any:
            import torch

            model = source.torch_model(dtype, device)
            before = _described(model)
            with torch.no_grad():
                change(model)
            if _described(model) == before:
                raise NotPlanted(f"{type(model).__name__} is as it was")
            return model

        # Runtimes keep what they convert by the fingerprint: the wrong model must not be taken for the right one.
        fingerprint = _described(changed("fp32"))
        return load(cell, cast("ModelSource", Planted(source, torch_model=changed, fingerprint=fingerprint)))

    return load


def _described(model: Any) -> str:
    """Hash a torch model: its modules with their attributes, its weights with dtype and device."""
    import torch

    found = hashlib.sha256(repr(model).encode())
    for name, weight in model.state_dict().items():
        found.update(f"{name} {weight.dtype} {weight.device}".encode())
        if not weight.is_meta:
            found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _matrix(model: Any) -> torch.Tensor:
    """Return the weight of a linear layer from the middle of the model."""
    from torch.nn import Linear

    found = [module.weight for module in model.modules() if isinstance(module, Linear)]
    if not found:
        raise NotPlanted(f"{type(model).__name__} has no linear layer")
    return found[len(found) // 2]


def _reverse_row(model: Any) -> None:
    row = _matrix(model)[0]
    row.copy_(row.flip(0).clone())


def _draw_again(model: Any) -> None:
    import torch

    weight = _matrix(model)
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    weight.copy_(drawn * weight.std().cpu())


def _one_nan(model: Any) -> None:
    _matrix(model)[0, 0] = float("nan")


def _all_zero(model: Any) -> None:
    for parameter in model.parameters():
        parameter.zero_()


def _other_epsilon(model: Any) -> None:
    for module in model.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 1e-3


def _half_precision(model: Any) -> None:
    model.bfloat16()


def _elsewhere(model: Any) -> None:
    model.to("meta")


def _claiming(loaded: LoadedModel, **claims: Any) -> LoadedModel:
    return cast("LoadedModel", Planted(loaded, placement=replace(loaded.placement, **claims)))


def _changed_outputs(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Loading:
    return loaded_as(lambda loaded: planted.with_forward(loaded, lambda right, inputs: change(right(inputs))))


def _each(change: Callable[[torch.Tensor], torch.Tensor]) -> Loading:
    return _changed_outputs(lambda outputs: {name: change(leaf) for name, leaf in outputs.items()})


def _all_elements(leaf: torch.Tensor) -> torch.Tensor:
    """Move every element by less than what is allowed for one, all in one direction."""
    return leaf + 0.9e-5 * max(1.0, float(leaf.abs().max()))


def _one_element(leaf: torch.Tensor) -> torch.Tensor:
    """Make the element nearest to zero wrong: by half of what rel-L2 allows over the leaf."""
    wrong = leaf.clone().reshape(-1)
    wrong[int(wrong.abs().argmin())] += 0.5e-5 * float(leaf.double().norm())
    return wrong.reshape(leaf.shape)


def _with_infinity(leaf: torch.Tensor) -> torch.Tensor:
    wrong = leaf.clone()
    wrong[0, 0, 0] = float("inf")
    return wrong


def _noisy(leaf: torch.Tensor) -> torch.Tensor:
    import torch

    return leaf + 1e-3 * torch.randn_like(leaf)


def _blind(loaded: LoadedModel) -> LoadedModel:
    """Use the first inputs in every later call."""
    first: list[Any] = []

    def forward(right: Callable[[Tensors], dict[str, torch.Tensor]], inputs: Tensors) -> dict[str, torch.Tensor]:
        first.append(inputs["input_ids"])
        seen = first[0] if first[0].shape == inputs["input_ids"].shape else inputs["input_ids"]
        return right({**inputs, "input_ids": seen})

    return planted.with_forward(loaded, forward)


def _stale(loaded: LoadedModel) -> LoadedModel:
    """Return the outputs of the previous call, where there was one."""
    earlier: list[dict[str, torch.Tensor]] = []

    def forward(right: Callable[[Tensors], dict[str, torch.Tensor]], inputs: Tensors) -> dict[str, torch.Tensor]:
        earlier.append(right(inputs))
        return earlier.pop(0) if len(earlier) > 1 else earlier[0]

    return planted.with_forward(loaded, forward)


def _hoarding(loaded: LoadedModel) -> LoadedModel:
    """Keep the outputs of every run."""
    kept: list[Any] = []

    def forward(right: Callable[[Tensors], dict[str, torch.Tensor]], inputs: Tensors) -> dict[str, torch.Tensor]:
        kept.append(right(inputs))
        return dict(kept[-1])

    return planted.with_forward(loaded, forward)


def _unmasked(right: Callable[[Tensors], dict[str, torch.Tensor]], inputs: Tensors) -> dict[str, torch.Tensor]:
    import torch

    return right({**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})


def _generating(change: Callable[[Tensors, torch.Tensor, bool], torch.Tensor]) -> Loading:
    def around(loaded: LoadedModel) -> LoadedModel:
        def generate(inputs: Tensors, *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
            tokens = loaded.generate(inputs, max_new_tokens=max_new_tokens, use_cache=use_cache)
            return change(inputs, tokens.clone(), use_cache)

        return cast("LoadedModel", Planted(loaded, generate=generate))

    return loaded_as(around)


def _repeat_prompt(inputs: Tensors, tokens: torch.Tensor, _use_cache: bool) -> torch.Tensor:
    prompt = inputs["input_ids"]
    return prompt.repeat(1, tokens.shape[1] // prompt.shape[1] + 1)[:, : tokens.shape[1]]


def _last_token(_inputs: Tensors, tokens: torch.Tensor, use_cache: bool) -> torch.Tensor:
    if not use_cache:
        tokens[:, -1] += 1
    return tokens


def _other_in_pipelines(loaded: LoadedModel) -> LoadedModel:
    """Give `transformers.pipeline` a model with negated logits; everything else gets a correct one."""
    model = copy.copy(loaded.pipeline_model())
    right = model.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        output = right(*arguments, **options)
        output.logits = -output.logits
        return output

    model.forward = forward
    return cast("LoadedModel", Planted(loaded, pipeline_model=lambda: model))


def _never_perturbed(loaded: LoadedModel) -> LoadedModel:
    """Change nothing when the canary changes a weight."""
    return cast("LoadedModel", Planted(loaded, perturbed=nullcontext))


def _never_restored(loaded: LoadedModel) -> LoadedModel:
    """Stay wrong after the canary has changed a weight."""
    made: list[WeightChange] = []

    def perturbed(change: WeightChange) -> AbstractContextManager[None]:
        made.append(change)
        return nullcontext()

    def forward(inputs: Tensors) -> dict[str, torch.Tensor]:
        return {name: leaf + len(made) for name, leaf in loaded.forward(inputs).items()}

    return cast("LoadedModel", Planted(loaded, perturbed=perturbed, forward=forward))


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        from safetensors.torch import load_file, save_file

        for path in directory.glob("*.safetensors"):
            tensors = load_file(path)
            change(tensors)
            save_file(tensors, path, {"format": "pt"})
            return
        raise NotPlanted(f"{directory} has no weights in safetensors")

    return edit


def _zero_in_files(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.zero_()


def _norm_in_files(tensors: dict[str, torch.Tensor]) -> str:
    found = [name for name in tensors if name.endswith("output.LayerNorm.weight")]
    if not found:
        raise NotPlanted(f"no norm among {', '.join(list(tensors)[:5])} ...")
    return found[-1]


def _nan_in_files(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_norm_in_files(tensors)][0] = float("nan")


def _missing_in_files(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[_norm_in_files(tensors)]


def _other_class(directory: Path) -> None:
    path = directory / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("model_type") != "bert":
        raise NotPlanted(f"{path} does not say that it is a BERT")
    path.write_text(json.dumps({**data, "model_type": "gpt2"}), encoding="utf-8")


DEFECTS: tuple[Defect, ...] = (
    Defect("a row of a weight reversed", "loading", ("parity",), read_as(_reverse_row)),
    Defect("a weight drawn anew", "loading", ("parity",), read_as(_draw_again)),
    Defect(
        "one weight NaN",
        "loading",
        ("forward", "parity"),
        read_as(_one_nan),
        because="NaN",
        kinds=frozenset(DEVICE_KINDS) - {"webgpu"},
    ),
    # WGSL's implementations may assume that there is no NaN (WGSL, "Floating Point Evaluation"): it may get lost.
    Defect("one weight NaN", "loading", ("parity",), read_as(_one_nan), kinds=frozenset({"webgpu"})),
    Defect("all weights zero", "loading", ("parity", "sensitivity"), read_as(_all_zero)),
    Defect("epsilon of the norms changed", "loading", ("parity",), read_as(_other_epsilon)),
    Defect(
        "weights changed after loading",
        "loading",
        ("placement",),
        read_as(_reverse_row),
        because="weight",
        kinds=frozenset(TORCH_KINDS),
    ),
    Defect(
        "bf16 where fp32 was asked for",
        "placement",
        ("placement",),
        read_as(_half_precision),
        because="but the runtime reports bf16",
        kinds=frozenset(TORCH_KINDS),
    ),
    Defect(
        "the model is on another device",
        "placement",
        ("placement",),
        read_as(_elsewhere),
        because="but the runtime reports meta",
        kinds=frozenset({"cpu"}),
    ),
    Defect(
        "the runtime chose another device",
        "placement",
        ("placement",),
        loaded_as(partial(_claiming, actual_devices=("elsewhere:0",))),
        because="but the runtime reports elsewhere:0",
    ),
    Defect(
        "the runtime names no device",
        "placement",
        ("placement",),
        loaded_as(partial(_claiming, actual_devices=())),
        because="no device",
    ),
    Defect(
        "a mock says that it ran",
        "placement",
        ("placement",),
        loaded_as(partial(_claiming, implementation="mocked")),
        because="mocked",
    ),
    Defect("fp16 that calls itself fp32", "backend", ("parity",), loaded_as(partial(planted.rounding, dtype="fp16"))),
    Defect("outputs off by a thousandth", "backend", ("parity",), _each(lambda leaf: leaf * 1.001)),
    Defect("all elements off the same way", "backend", ("parity",), _each(_all_elements), because="rel-L2"),
    Defect("one element of the outputs wrong", "backend", ("parity",), _each(_one_element), because="elements"),
    Defect("outputs that are integers", "backend", ("forward",), _each(lambda leaf: leaf.long()), because="dtype"),
    Defect("outputs of another shape", "backend", ("forward",), _each(lambda leaf: leaf[:, :-1]), because="shape"),
    Defect("an output missing", "backend", ("forward", "parity"), _changed_outputs(lambda _: {}), because="missing"),
    Defect(
        "an output too many",
        "backend",
        ("forward", "parity"),
        _changed_outputs(lambda outputs: {**outputs, "more": next(iter(outputs.values()))}),
        because="unexpected",
    ),
    Defect("an infinite output", "backend", ("forward", "parity"), _each(_with_infinity)),
    Defect("inputs ignored", "backend", ("sensitivity",), loaded_as(_blind)),
    Defect("outputs of the previous call", "backend", ("sensitivity", "batch_invariance"), loaded_as(_stale)),
    Defect("noise of 1e-3", "backend", ("determinism", "parity"), _each(_noisy)),
    Defect(
        "samples of a batch mixed",
        "backend",
        ("batch_invariance",),
        _each(lambda leaf: leaf + 0.01 * leaf.mean(0, keepdim=True)),
    ),
    Defect(
        "padding counted",
        "backend",
        ("padding_invariance",),
        loaded_as(lambda loaded: planted.with_forward(loaded, _unmasked)),
    ),
    Defect("another model in pipelines", "backend", ("pipeline",), loaded_as(_other_in_pipelines)),
    Defect("1 MiB lost with every run", "memory", ("memory",), loaded_as(planted.leaking), because="runs"),
    Defect("outputs of all runs kept", "memory", ("memory",), loaded_as(_hoarding), because="still in memory"),
    Defect("a count of memory that never changes", "memory", ("memory",), loaded_as(planted.with_constant_memory)),
    Defect("the prompt repeated", "generation", ("generation",), _generating(_repeat_prompt), model=GPT2),
    Defect(
        "another last token without a cache",
        "generation",
        ("generation",),
        _generating(_last_token),
        because="without cache",
        model=GPT2,
    ),
    Defect(
        "a canary that changes nothing", "canary", ("canary",), loaded_as(_never_perturbed), because="passed parity"
    ),
    Defect("a canary that is never undone", "canary", ("canary",), loaded_as(_never_restored), because="restored"),
    Defect("all weights zero, also in the files", "files", ("sensitivity", "canary"), files=_tensors(_zero_in_files)),
    Defect("one weight NaN, also in the files", "files", ("forward", "parity"), files=_tensors(_nan_in_files)),
    Defect(
        "a tensor missing in the files",
        "files",
        ("from_pretrained",),
        files=_tensors(_missing_in_files),
        because="missing keys",
        level="class",
    ),
    Defect("config.json of another model", "files", ("from_pretrained",), files=_other_class, level="class"),
    Defect(
        "a class that transformers does not have",
        "model",
        ("resolves",),
        model=replace(BERT, architecture="BertForNothing"),
        level="class",
    ),
)
