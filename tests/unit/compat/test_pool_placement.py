"""torch modules are moved, cast and measured; where they are is read back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.compat.model_placement import is_torch_module, nbytes_of, place
from pytest_hfaccel.core.errors import LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import cpu_only

pytestmark = pytest.mark.slow

CPU = Device("cpu")


def make_module(**options: Any) -> Any:
    import torch

    class Norm(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4, bias=False, **options)
            self.tied = torch.nn.Linear(4, 4, bias=False, **options)
            self.tied.weight = self.linear.weight
            self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))

    return Norm()


def test_a_module_is_moved_and_cast_in_place() -> None:
    import torch

    module = make_module()
    placement = place(module, CPU, "bf16")
    assert placement == Placement("cpu", ("cpu",), "bf16", "bf16")
    assert module.linear.weight.dtype is torch.bfloat16
    assert module.steps.dtype is torch.int64  # a count is not a weight
    assert place(module, CPU) == Placement("cpu", ("cpu",), "as constructed", "bf16")


def test_a_mixed_module_says_so() -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).half())
    placement = place(module, CPU)
    assert placement is not None
    assert placement.effective_dtype == "mixed"


def test_bytes_are_those_of_the_tensors() -> None:
    module = make_module()
    assert nbytes_of(module) == 4 * 4 * 4 + 2 * 8  # a tied weight counts once
    assert nbytes_of(object()) == 0
    assert nbytes_of(SimpleNamespace(nbytes=7)) == 7


def test_a_module_on_its_way_to_openvino_is_not_said_to_run_there() -> None:
    placement = place(make_module(), Device("openvino", "CPU"))
    assert placement is not None
    assert (placement.actual_devices, placement.implementation) == (("cpu",), "unavailable")
    assert "OpenVINO runs converted models" in placement.details["reason"]


def test_a_browser_takes_no_module() -> None:
    with pytest.raises(LoadError, match="webgpu: a torch module does not run there"):
        place(make_module(), Device("webgpu"))


def test_a_module_that_does_not_move_is_found_out() -> None:
    class Stubborn(type(make_module())):  # type: ignore[misc]
        def to(self, *_: Any, **__: Any) -> Any:
            return self

    stubborn: Any = Stubborn()
    stubborn.linear.to("meta")
    with pytest.raises(LoadError, match="after the move, tensors of the model are on cpu, meta"):
        place(stubborn, CPU)
    with pytest.raises(LoadError, match="after the cast to fp16, tensors of the model are fp32"):
        place(Stubborn(), CPU, "fp16")


def test_torchs_out_of_memory_is_ours() -> None:
    import torch

    class Huge(torch.nn.Module):  # type: ignore[misc]
        def to(self, *_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    with pytest.raises(OutOfMemory, match=r"^cpu ran out of memory: CUDA out of memory\. Tried to allocate 20 GiB$"):
        place(Huge(), CPU)


def test_other_values_are_where_they_say_they_are() -> None:
    stated = Placement("cpu", ("CPU",), "fp32", "fp32")
    assert place(SimpleNamespace(placement=stated), CPU) is stated
    assert place(object(), CPU) is None
    assert not is_torch_module(object())
    with pytest.raises(LoadError, match="cuda:0: the constructor made a model for cpu"):
        place(SimpleNamespace(placement=stated), Device("cuda", "0"))


def test_the_pool_places_measures_and_keeps_precisions_apart(tmp_path: Path) -> None:
    import torch

    pool = ResourcePool(devices=cpu_only(), error_reports=tmp_path)
    full = pool.get_model("bert", "base", make_module)
    half = pool.get_model("bert", "base", make_module, {"precision": torch.float16})
    assert (full.linear.weight.dtype, half.linear.weight.dtype) == (torch.float32, torch.float16)
    assert [entry["bytes"] for entry in pool.usage()] == [80, 48]
    placements = [details["placement"]["effective_dtype"] for details in pool.get_resource_details()]
    assert placements == ["fp32", "fp16"]


def test_one_object_is_not_two_instances(tmp_path: Path) -> None:
    pool = ResourcePool(devices=cpu_only(), error_reports=tmp_path)
    module = make_module()
    pool.get_model("bert", "base", lambda: module)
    with pytest.raises(LoadError, match="returned the object that the pool already has as 'model bert base cpu'"):
        pool.get_model("bert", "base", lambda: module, {"precision": "fp16"})
    assert nbytes_of(module) == 80  # the first instance is untouched


def test_a_device_out_of_memory_is_tried_again_after_room_was_made(tmp_path: Path) -> None:
    import torch

    pool = ResourcePool(devices=cpu_only(), error_reports=tmp_path)
    pool.get_model("bert", "idle", make_module)

    def construct() -> Any:
        if pool.usage()[0]["key"] == "model bert idle cpu":
            raise torch.OutOfMemoryError("out of memory")
        return make_module()

    assert is_torch_module(pool.get_model("bert", "base", construct))
    assert pool.stats()["oom_retries"] == 1
