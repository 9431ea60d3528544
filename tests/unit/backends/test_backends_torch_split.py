"""Models that are split: over two processes that exchange numbers with gloo, and between memory and disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import BackendUnavailable, DeviceCrashed, DeviceTimeout
from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.engine.runner import Runner
from tests.forkserver import ForkedPopen
from tests.unit.backends.backend_sources import make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow

ON_TWO_RANKS = "cpu+tp=2"
WRONG = WeightChange("model.layers.1.self_attn.q_proj.weight", 3000, 0.5)
"""A weight that the second rank has."""


@pytest.fixture(scope="module")
def llama(shared_cache: Path) -> Any:
    return tiny_checkpoint(shared_cache, "LlamaForCausalLM", "text-generation")


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> Any:
    return tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation")


_forked: set[int] = set()


class _RecordedPopen(ForkedPopen):
    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        _forked.add(self.pid)


@pytest.fixture(scope="module", autouse=True)
def no_rank_stays(forked_processes: None) -> Iterator[None]:  # noqa: ARG001 - used for what it does
    from pytest_hfaccel.backends.torch.ranks import end_all_ranks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", _RecordedPopen)
        yield
        end_all_ranks()
        assert not ranks_alive()


def ranks_alive() -> list[psutil.Process]:
    """The ranks of this process: its children, or forks, which are children of another."""
    forked = [psutil.Process(pid) for pid in _forked if psutil.pid_exists(pid)]
    children = [each for each in psutil.Process().children(recursive=True) if each.pid not in _forked]
    return [*forked, *filter(_is_rank, children)]


def _is_rank(process: psutil.Process) -> bool:
    try:
        return "pytest_hfaccel.backends.torch.rank" in process.cmdline()
    except psutil.Error:
        return False


def load(source: Any, device: str, dtype: str = "fp32") -> Any:
    return Backends().for_kind("cpu").load(make_cell(source.spec, device, dtype), source)


def reference(source: Any) -> Any:
    import torch

    with torch.inference_mode():
        return source.torch_model("fp64")(**source.sample().forward).logits


def error(outputs: Any, expected: Any) -> float:
    return float((outputs["logits"].double() - expected).norm() / expected.norm())


def test_two_ranks_compute_what_one_process_does(llama: Any) -> None:
    loaded = load(llama, ON_TWO_RANKS)
    outputs = loaded.forward(llama.sample().forward)
    assert error(outputs, reference(llama)) < 1e-5
    details = loaded.placement.details
    assert (details["ranks"], details["collectives"], details["ranks_agree"]) == (2, "gloo", True)
    assert loaded.placement.actual_devices == ("cpu",)
    whole = load(llama, "cpu")
    assert all(whole.nbytes / 2 <= part < whole.nbytes for part in details["bytes_by_rank"])
    assert sum(details["bytes_by_rank"]) == loaded.nbytes
    tokens = [
        one.generate(llama.sample().generate, max_new_tokens=4, use_cache=True).tolist() for one in (loaded, whole)
    ]
    assert tokens[0] == tokens[1]
    loaded.close()
    with pytest.raises(Exception, match="closed"):
        loaded.forward(llama.sample().forward)


def test_a_wrong_weight_in_the_second_rank_is_noticed_and_restored(llama: Any) -> None:
    loaded = load(llama, ON_TWO_RANKS)
    inputs = llama.sample().forward
    before = loaded.forward(inputs)["logits"]
    with loaded.perturbed(WRONG) as wrong:
        assert float((wrong.forward(inputs)["logits"] - before).abs().max()) > 1e-3
    assert bool((loaded.forward(inputs)["logits"] == before).all())
    with pytest.raises(Exception, match="no_such_weight"), loaded.perturbed(WeightChange("no_such_weight", 0, 1.0)):
        pass
    loaded.close()


def test_the_memory_of_all_ranks_is_counted(llama: Any) -> None:
    loaded = load(llama, ON_TWO_RANKS)
    loaded.reset_peak_memory()
    before = loaded.memory()
    assert before["peak_source"].endswith("summed over 2 ranks")
    with loaded.occupied(2**26):
        assert loaded.memory()["current_bytes"] - before["current_bytes"] > 0.7 * 2**26
    assert loaded.memory()["current_bytes"] - before["current_bytes"] < 0.3 * 2**26
    loaded.close()


def test_what_cannot_be_split_says_why(llama: Any, gpt2: Any) -> None:
    with pytest.raises(BackendUnavailable, match=r"cpu\+tp=2: GPT2LMHeadModel has no plan of transformers"):
        load(gpt2, ON_TWO_RANKS)
    with pytest.raises(BackendUnavailable, match="which cannot be divided among 3 ranks"):
        load(llama, "cpu+tp=3")
    with pytest.raises(BackendUnavailable, match="int8"):
        load(llama, ON_TWO_RANKS, "int8")


def test_a_rank_that_is_killed_ends_its_cell_and_no_other(llama: Any, tmp_path: Path) -> None:
    from pytest_hfaccel.backends.torch.ranks import ranks_of

    runner = Runner(RunConfig(cache=str(tmp_path)))
    cell = make_cell(llama.spec, ON_TWO_RANKS)
    other = runner.backends.for_kind("cpu").load(cell, llama)
    expected = other.forward(llama.sample().forward)["logits"]
    cell_run = runner.open(cell)
    assert cell_run.check("placement").status == Status.PASSED
    group = ranks_of(cell.device)
    pids = group.pids
    os.kill(pids[1], signal.SIGKILL)
    outcome = cell_run.check("forward")
    assert (outcome.status, outcome.stage) == (Status.CRASHED, Stage.RUN)
    assert "rank 1 of 2 was killed by SIGKILL" in str(outcome.reason)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    later = cell_run.check("parity")
    assert later.status == Status.SKIPPED
    assert "see 'forward'" in str(later.reason)
    cell_run.close()
    assert cell_run.result().status == "crashed"
    assert bool((other.forward(llama.sample().forward)["logits"] == expected).all())  # on new ranks
    assert len(ranks_alive()) == 2
    other.close()
    runner.close()


def test_a_rank_that_hangs_is_ended(llama: Any) -> None:
    from pytest_hfaccel.backends.torch.ranks import ranks_of

    loaded = load(llama, ON_TWO_RANKS)
    group = ranks_of(make_cell(llama.spec, ON_TWO_RANKS).device)
    pids, group.limit = group.pids, 1
    os.kill(pids[1], signal.SIGSTOP)
    with pytest.raises(DeviceTimeout, match="did not answer within 1 s; all ranks were ended") as caught:
        loaded.forward(llama.sample().forward)
    assert caught.value.stage == "run"
    assert not any(psutil.pid_exists(pid) for pid in pids)
    loaded.close()


_PARENT = """
import sys
from pathlib import Path
from tests.unit.backends.test_backends_torch_split import *

source = tiny_checkpoint(Path(sys.argv[1]), "LlamaForCausalLM", "text-generation")
loaded = load(source, ON_TWO_RANKS)
print(*[each.pid for each in ranks_alive()], flush=True)
sys.stdin.read()
"""


@pytest.mark.nightly
def test_the_ranks_of_a_killed_process_leave(shared_cache: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _PARENT, str(shared_cache)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as parent:  # type: ignore[call-overload]
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_two_ranks_pass_the_battery_at_other_precisions(llama: Any, dtype: str, tmp_path: Path) -> None:
    runner = Runner(RunConfig(cache=str(tmp_path)))
    result = runner.run(make_cell(llama.spec, ON_TWO_RANKS, dtype))
    runner.close()
    assert result.status == "passed", [(check.name, check.reason) for check in result.checks]


@pytest.mark.parametrize("mode", ["offload", "auto"])
def test_a_model_with_a_device_map_passes_the_battery(llama: Any, mode: str, tmp_path: Path) -> None:
    runner = Runner(RunConfig(cache=str(tmp_path)))
    result = runner.run(make_cell(llama.spec, f"cpu+{mode}"))
    runner.close()
    assert result.status == "passed", [(check.name, check.reason) for check in result.checks]
    assert result.placement is not None
    details = result.placement["details"]
    if mode == "offload":
        assert details["modules_by_device"].keys() == {"cpu", "disk"}
        assert details["offloaded_parameters"] > 0
        assert result.placement["actual_devices"] == ["cpu", "disk"]
    else:
        assert details["trivial"] == "the device map is trivial: the whole model is on cpu"


def test_an_offloaded_weight_can_be_made_wrong_and_is_restored(llama: Any) -> None:
    from pytest_hfaccel.upstream.accelerate import offloaded_weights

    loaded = load(llama, "cpu+offload")
    assert WRONG.parameter in offloaded_weights(loaded.pipeline_model())
    inputs = llama.sample().forward
    before = loaded.forward(inputs)["logits"]
    with loaded.perturbed(WRONG) as wrong:
        assert float((wrong.forward(inputs)["logits"] - before).abs().max()) > 1e-3
    assert bool((loaded.forward(inputs)["logits"] == before).all())
    assert loaded.nbytes < load(llama, "cpu").nbytes
    loaded.close()


def test_without_accelerate_the_extra_is_named(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_hfaccel.backends.torch import device_maps

    monkeypatch.setattr(device_maps, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'pytest-hfaccel\[models\]'"):
        load(llama, "cpu+offload")


def test_a_device_that_is_not_here_is_refused(llama: Any) -> None:
    cell = make_cell(llama.spec, "cuda:0+tp=2")
    with pytest.raises((BackendUnavailable, DeviceCrashed)):
        Backends().for_kind(cell.device.kind).load(replace(cell, dtype="fp32"), llama)
