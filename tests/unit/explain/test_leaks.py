"""What a run leaves behind is traced to the line that allocated it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pytest_hfaccel.backends import memory
from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.backends.torch.model import TorchModel
from pytest_hfaccel.checks.planted import LEAKED_BYTES, leaking
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.engine.session import Session
from pytest_hfaccel.explain.leaks import LeakExplanation, LeakSite, find_leak
from pytest_hfaccel.registry.resolution import resolve_model

INPUTS = {"input_ids": torch.arange(16).reshape(2, 8)}
CACHE: dict[int, torch.Tensor] = {}


class Keeping(torch.nn.Module):  # type: ignore[misc]
    """Appends its activations to a list."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.kept: list[torch.Tensor] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        activation = self.inner(hidden)
        doubled = activation * 2  # allocated here
        self.kept.append(doubled)
        return doubled / 2


class Caching(torch.nn.Module):  # type: ignore[misc]
    """Keeps a result for each call in a cache that nothing empties."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        CACHE[len(CACHE)] = hidden.cos()  # allocated here
        return self.inner(hidden)


class Replacing(torch.nn.Module):  # type: ignore[misc]
    """Keeps its latest activation only, and one that it makes once."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.once: torch.Tensor | None = None
        self.last: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.once is None:
            self.once = hidden.sin()
        self.last = hidden.cos()
        return self.inner(hidden)


@pytest.fixture
def loaded() -> Iterator[TorchModel]:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    model = TorchModel(
        GPT2LMHeadModel(config).eval(),
        torch.float32,
        Placement("cpu", ("cpu",), "fp32", "fp32"),
        nbytes=0,
        timings={},
    )
    yield model
    model.close()


def line_of(thing: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(thing)
    return first + next(number for number, line in enumerate(lines) if text in line)


def plant(loaded: TorchModel, kind: Any) -> None:
    block = loaded.pipeline_model().transformer.h[1]
    block.mlp = kind(block.mlp)


def the_site(found: LeakExplanation) -> LeakSite:
    (site,) = found.sites
    assert Path(site.file) == Path(__file__)
    return site


def test_activations_appended_to_a_list(loaded: TorchModel) -> None:
    plant(loaded, Keeping)
    found = find_leak(loaded, INPUTS)
    site = the_site(found)
    assert site.line == line_of(Keeping, "allocated here")
    assert (site.operator, site.shape, site.count_per_run) == ("aten.mul.Tensor", (2, 8, 16), 1)
    assert site.bytes_per_run == 2 * 8 * 16 * 4
    assert (site.module, site.kind) == ("transformer.h.1.mlp", "Keeping")
    assert site.holder.startswith("transformer.h.1.mlp.kept, a list of ")
    assert found.cause is Cause.TRANSFORMERS
    text = "\n".join(found.lines())
    assert f"{site.place}: doubled = activation * 2  # allocated here" in text
    assert "modeling_gpt2.py" in site.callers[0]


def test_a_cache_that_grows(loaded: TorchModel) -> None:
    plant(loaded, Caching)
    try:
        site = the_site(find_leak(loaded, INPUTS))
    finally:
        CACHE.clear()
    assert site.line == line_of(Caching, "allocated here")
    assert site.operator == "aten.cos.default"
    assert site.holder.startswith(f"{__name__}.CACHE, a dict of ")


def test_a_hook_that_keeps_a_python_object(loaded: TorchModel) -> None:
    kept: list[Any] = []

    def remember(*_: Any) -> None:
        kept.append({"step": len(kept), "text": bytes(50_000)})  # allocated here

    loaded.pipeline_model().transformer.h[0].register_forward_hook(remember)
    found = find_leak(loaded, INPUTS)
    site = the_site(found)
    assert site.line == line_of(remember, "allocated here")
    assert site.operator == ""
    assert site.bytes_per_run == pytest.approx(50_000, rel=0.05)
    assert "in Python objects" in next(iter(found.lines()))


def test_what_is_replaced_or_made_once_is_no_leak(loaded: TorchModel) -> None:
    plant(loaded, Replacing)
    assert find_leak(loaded, INPUTS).sites == ()


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("openvino:CPU", marks=pytest.mark.nightly),
        pytest.param("onnxruntime:CPU", marks=pytest.mark.nightly),
    ],
)
def test_objects_that_own_memory_which_python_does_not_count(
    device: str, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    wanted = {"models": ("gpt2",), "devices": (device,), "dtypes": ("fp32",), "weights": "tiny"}
    session = Session(RunConfig.from_values(wanted))
    try:
        cell = session.plan.cells(resolve_model("gpt2", session.registry), session.store)[0]
        run = session.runner.open(cell)
        found = find_leak(leaking(run.loaded), run.sample.forward)  # pages of this process
        run.close()
    finally:
        session.close()
    assert found.growth["process"] == pytest.approx(LEAKED_BYTES, rel=0.25)
    assert found.sites == ()
    assert memory.__file__ in [each.file for each in found.owners]
    assert found.cause is Cause.OURS


class Lossy:
    """A model whose runtime loses memory by itself: nothing of it is a tensor or a Python object."""

    def __init__(self, lost: int) -> None:
        self._lost, self._total = lost, 0

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        self._total += self._lost
        return {"output": inputs["input_ids"] + 1}

    def pipeline_model(self) -> None:
        return None

    def memory(self) -> dict[str, Any]:
        return {"current_bytes": self._total, "source": "process"}

    def memory_counters(self) -> dict[str, int]:
        return {"C heap": self._total // 2}


def test_memory_of_the_runtime_is_said_to_be_that() -> None:
    found = find_leak(Lossy(2**20), INPUTS)  # type: ignore[arg-type]
    assert (found.sites, found.cause) == ((), Cause.RUNTIME)
    assert found.growth == {"process": 2**20, "C heap": 2**19}
    text = "\n".join(found.lines())
    assert "does not say by which call it was allocated" in text
    assert "process +1.0 MiB, C heap +512.0 KiB" in text
    nothing = find_leak(Lossy(0), INPUTS)  # type: ignore[arg-type]
    assert nothing.cause is None
    assert "nothing was seen to stay" in "\n".join(nothing.lines())
