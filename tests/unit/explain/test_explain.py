"""Defects planted in a torch model: the module and the operator that are named are those that were changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from pytest_hfaccel.cli import main
from pytest_hfaccel.explain import Explanation, explain
from pytest_hfaccel.explain.reproduction import write_reproduction
from tests.harness import environment, run_python

IDS = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0


@cache
def right_model(name: str) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 99}
    if name == "bert":
        return BertForMaskedLM(BertConfig(**sizes, intermediate_size=64)).double().eval()
    config = LlamaConfig(**sizes, intermediate_size=64, num_key_value_heads=2, max_position_embeddings=64)
    return LlamaForCausalLM(config).double().eval()


def explained(name: str, plant: Callable[[Any], None], dtype: torch.dtype = torch.float32) -> Explanation:
    reference = right_model(name)
    model, twin = copy.deepcopy(reference).to(dtype), copy.deepcopy(reference).to(dtype)
    with torch.no_grad():
        plant(model)
    return explain(model, reference, twin, {"input_ids": IDS, "attention_mask": MASK})


def replaced(module: str, forward: Callable[..., Any]) -> Callable[[Any], None]:
    """Give a module another `forward`, which gets the right one and the arguments."""

    def plant(model: Any) -> None:
        target = model.get_submodule(module)
        right = target.forward
        target.forward = MethodType(lambda _, *args, **kwargs: forward(right, *args, **kwargs), target)

    return plant


def changed(parameter: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Change a parameter."""

    def plant(model: Any) -> None:
        weight = model.get_parameter(parameter)
        weight.copy_(change(weight.clone()))

    return plant


def attribute(module: str, name: str, value: Any) -> Callable[[Any], None]:
    """Set an attribute of a module."""
    return lambda model: setattr(model.get_submodule(module), name, value)


def half(right: Any, value: Any) -> Any:
    return right(value.half().float())


def with_nan(right: Any, value: Any) -> Any:
    output = right(value)
    return torch.where(output == output.max(), torch.inf, output) * 0 + output


LAYER = "bert.encoder.layer.1"
LLAMA = "model.layers.1"
DEFECTS = {
    "wrong epsilon": ("bert", attribute(f"{LAYER}.attention.output.LayerNorm", "eps", 1e-3), "layer_norm"),
    "another activation": ("bert", attribute(f"{LAYER}.intermediate", "intermediate_act_fn", nn.GELU("tanh")), "gelu"),
    "a row of a weight": (
        "bert",
        changed(f"{LAYER}.output.dense.weight", lambda w: w.index_fill(0, torch.tensor(3), 0)),
        "linear",
    ),
    "transposed weight": ("bert", changed(f"{LAYER}.attention.self.query.weight", lambda w: w.T), "linear"),
    "permuted heads": ("bert", changed(f"{LAYER}.attention.self.key.weight", lambda w: w.roll(8, 0)), "linear"),
    "a bias lost": ("bert", changed(f"{LAYER}.output.LayerNorm.bias", lambda w: w + 0.1), "layer_norm"),
    "dropped mask": (
        "bert",
        replaced(f"{LAYER}.attention.self", lambda right, h, **k: right(h, **{**k, "attention_mask": None})),
        "scaled_dot_product_attention",
    ),
    "wrong scale": ("bert", attribute(f"{LAYER}.attention.self", "scaling", 0.5), "scaled_dot_product_attention"),
    "a position off by one": (
        "bert",
        changed("bert.embeddings.position_embeddings.weight", lambda w: w.roll(1, 0)),
        "embedding",
    ),
    "half precision in one product": ("bert", replaced(f"{LAYER}.intermediate.dense", half), ""),
    "NaN": ("bert", replaced(f"{LAYER}.output.dense", with_nan), "mul"),
    "norm's epsilon of Llama": ("llama", attribute(f"{LLAMA}.input_layernorm", "variance_epsilon", 1e-2), "add"),
    "gate of Llama": ("llama", changed(f"{LLAMA}.mlp.gate_proj.weight", lambda w: w * 1.001), "linear"),
    "activation of Llama": ("llama", attribute(f"{LLAMA}.mlp", "act_fn", nn.GELU()), "gelu"),
    "scale of Llama": ("llama", attribute(f"{LLAMA}.self_attn", "scaling", 0.3), "scaled_dot_product_attention"),
    "rotation of Llama": ("llama", lambda model: model.model.rotary_emb.inv_freq.mul_(1.01), ""),
}
MODULES = {
    "wrong epsilon": f"{LAYER}.attention.output.LayerNorm",
    "another activation": f"{LAYER}.intermediate.intermediate_act_fn",
    "a row of a weight": f"{LAYER}.output.dense",
    "transposed weight": f"{LAYER}.attention.self.query",
    "permuted heads": f"{LAYER}.attention.self.key",
    "a bias lost": f"{LAYER}.output.LayerNorm",
    "dropped mask": f"{LAYER}.attention.self",
    "wrong scale": f"{LAYER}.attention.self",
    "a position off by one": "bert.embeddings.position_embeddings",
    "half precision in one product": f"{LAYER}.intermediate.dense",
    "NaN": f"{LAYER}.output.dense",
    "norm's epsilon of Llama": f"{LLAMA}.input_layernorm",
    "gate of Llama": f"{LLAMA}.mlp.gate_proj",
    "activation of Llama": f"{LLAMA}.mlp.act_fn",
    "scale of Llama": f"{LLAMA}.self_attn",
    "rotation of Llama": "model.rotary_emb",
}


QUICK = ("wrong epsilon", "dropped mask", "gate of Llama", "rotation of Llama")


@pytest.mark.parametrize(
    "defect", [pytest.param(each, marks=() if each in QUICK else pytest.mark.nightly) for each in DEFECTS]
)
def test_the_module_and_the_operator_that_were_changed_are_named(defect: str) -> None:
    name, plant, operator = DEFECTS[defect]
    found = explained(name, plant)
    assert found.guilty is not None
    assert found.guilty.name == MODULES[defect]
    if operator:
        assert found.operator is not None
        assert found.operator.operator.split(".")[1] == operator, found.operator.reason


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (2e5, "it makes the first NaN or infinity; its inputs have none"),
        (1e7, f"its weight {LLAMA}.mlp.up_proj.weight has NaN or infinity on the device"),
    ],
)
def test_the_operator_that_overflows_is_named(
    factor: float, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = copy.deepcopy(right_model("llama"))
    with torch.no_grad():
        large.model.layers[1].post_attention_layernorm.weight.mul_(100)
        large.model.layers[1].mlp.up_proj.weight.mul_(factor)
        large.model.layers[1].mlp.down_proj.weight.div_(factor)
    monkeypatch.setitem(globals(), "right_model", lambda _: large)
    found = explained("llama", lambda _: None, torch.float16)
    assert found.guilty is not None
    assert found.guilty.name == f"{LLAMA}.mlp.up_proj"
    assert found.operator is not None
    assert found.operator.operator == "aten.linear.default"
    assert found.operator.reason == reason
    assert next(iter(found.lines())).startswith(f"First divergence: {LLAMA}.mlp.up_proj (Linear)")
    script, about = write_reproduction(found, tmp_path, "llama-cpu-fp16")
    assert script is not None or "weight" in reason, about


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_model_has_no_guilty_module(dtype: torch.dtype) -> None:
    found = explained("llama", lambda _: None, dtype)
    assert found.guilty is None
    assert next(iter(found.lines())).startswith("No module adds more than")


def test_a_reference_with_nan_says_nothing_of_the_device() -> None:
    reference, device = copy.deepcopy(right_model("bert")), copy.deepcopy(right_model("bert")).float()
    replaced(f"{LAYER}.output.dense", with_nan)(reference)
    found = explain(device, reference, device, {"input_ids": IDS, "attention_mask": MASK})
    assert found.guilty is None
    assert found.reference_nonfinite is not None
    module, operator = found.reference_nonfinite
    assert (module, operator.operator) == (f"{LAYER}.output.dense", "aten.mul.Tensor")
    assert next(iter(found.lines())).startswith("The fp64 reference has NaN or infinity")


def test_a_reference_takes_inputs_of_a_shorter_dtype() -> None:
    reference = right_model("llama")
    twin = copy.deepcopy(reference).float()
    embedded = reference.get_input_embeddings()(IDS).detach().float()
    found = explain(twin, reference, twin, {"inputs_embeds": embedded, "attention_mask": MASK})
    assert found.guilty is None


def test_a_script_shows_the_error_with_torch_alone(tmp_path: Path) -> None:
    name, plant, _ = DEFECTS["wrong epsilon"]
    script, about = write_reproduction(explained(name, plant), tmp_path, "bert-cpu-fp32")
    assert script is not None, about
    assert "pytest_hfaccel" not in script.read_text(encoding="utf-8")
    done = run_python([str(script)], tmp_path, environment(tmp_path))
    assert done.returncode == 1
    assert "relative L2 error" in done.stdout


def test_an_error_without_an_operator_is_not_reproduced_alone(tmp_path: Path) -> None:
    script, about = write_reproduction(explained("llama", lambda _: None), tmp_path, "llama-cpu-fp32")
    assert script is None
    assert about.startswith("not reproduced alone")
    assert list(tmp_path.iterdir()) == []


def test_the_command_explains_a_right_model(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    assert main(["explain", "bert-base-uncased", "--weights", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cell"] == "bert-base-uncased-cpu-fp32"
    assert (found["module"], found["operator"]) == (None, None)
    assert found["modules"][-1]["name"] == ""
    assert 0 < found["error"] < 1e-5
