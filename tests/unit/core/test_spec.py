from __future__ import annotations

import pytest

from pytest_hfaccel.core.config import REGISTERED
from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import (
    CLASS_LEVEL,
    CPU,
    Cell,
    Device,
    Expectation,
    ModelSpec,
    Weights,
    WeightsChoice,
)
from pytest_hfaccel.engine.plan import class_level, expand_matrix, split_over

TINY = WeightsChoice(Weights.TINY, "for a test")


def spec(name: str, **fields: object) -> ModelSpec:
    return ModelSpec(name, "BertForMaskedLM", "fill-mask", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "id_", "slug"),
    [
        ("cpu", "cpu", "cpu"),
        ("cuda", "cuda:0", "cuda0"),
        ("CUDA:1", "cuda:1", "cuda1"),
        ("openvino", "openvino:CPU", "openvinocpu"),
        ("openvino:gpu.0", "openvino:GPU.0", "openvinogpu.0"),
        ("onnxruntime", "onnxruntime:CPU", "onnxruntimecpu"),
        ("executorch:xnnpack", "executorch:XNNPACK", "executorchxnnpack"),
        ("onnxruntime:cuda", "onnxruntime:CUDA", "onnxruntimecuda"),
        ("onnxruntime:DIRECTML.1", "onnxruntime:DirectML.1", "onnxruntimedirectml.1"),
        ("mps", "mps", "mps"),
        ("cpu+TP=2", "cpu+tp=2", "cputp2"),
        ("cuda:2+tp=4", "cuda:2+tp=4", "cuda2tp4"),
        ("cpu+offload", "cpu+offload", "cpuoffload"),
        ("cpu+inductor", "cpu+inductor", "cpuinductor"),
        ("CUDA:1+Inductor", "cuda:1+inductor", "cuda1inductor"),
        ("cuda+inductor", "cuda:0+inductor", "cuda0inductor"),
        ("cpu+openvino", "cpu+openvino", "cpuopenvino"),
    ],
)
def test_device_from_text(text: str, id_: str, slug: str) -> None:
    device = Device.parse(text)
    assert (device.id, device.slug) == (id_, slug)
    assert Device.parse(device.id) == device


@pytest.mark.parametrize(
    "text",
    [
        *("", "tpu", "cuda:x", "cuda:-1", "cpu:0", "mps:1", "class", "onnxruntime:TPU", "executorch:CPU"),
        *("cpu+tp", "cpu+tp=1", "cpu+auto=2", "cpu+warp", "openvino+tp=2", "cpu+tp=2+offload"),
        *("cpu+", "cpu+tvm", "+inductor", "openvino:CPU+inductor", "fake:0+inductor", "cuda+inductor:0"),
    ],
)
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a device"):
        Device.parse(text)


def test_a_device_over_which_models_are_split() -> None:
    device = Device.parse("cuda:2+tp=4")
    assert (device.parallel, device.ranks, device.eager.id) == ("tp=4", 4, "cuda:2")
    assert not device.traits.torch_module
    assert not device.traits.accelerator
    assert Device.parse("cpu+offload").ranks == 1


@pytest.mark.parametrize(
    ("devices", "modes", "are_named", "expected"),
    [
        (["cpu"], ["tp=2", "none", "OFFLOAD"], True, "cpu+tp=2 cpu cpu+offload"),
        (["cuda:0", "cuda:1", "cpu", "openvino"], ["tp=2"], False, "cuda:0+tp=2 cpu+tp=2"),
        (["cuda:0", "cuda:2"], ["tp=2"], True, "cuda:0+tp=2 cuda:2+tp=2"),
    ],
)
def test_the_devices_of_a_run_with_split_models(
    devices: list[str], modes: list[str], are_named: bool, expected: str
) -> None:
    split = split_over([Device.parse(each) for each in devices], modes, are_named=are_named)
    assert " ".join(each.id for each in split) == expected


@pytest.mark.parametrize(
    ("device", "mode", "said"),
    [
        ("cpu", "tp=1", r"--hf-parallel: 'tp=1' is not allowed. Allowed: tp=<2 or more>, auto, offload, none"),
        ("openvino", "tp=2", "--hf-parallel tp=2: models cannot be split over openvino:CPU"),
        ("cpu+auto", "offload", r"models cannot be split over cpu\+auto"),
    ],
)
def test_what_models_cannot_be_split_over(device: str, mode: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_over([Device.parse(device)], [mode], are_named=True)


def test_a_device_with_a_compiler() -> None:
    device = Device.parse("cuda:1+inductor")
    assert (device.kind, device.target, device.compiler) == ("cuda+inductor", "1", "inductor")
    assert device.eager == Device("cuda", "1")
    assert (device.torch_name, device.eager.compiler) == ("cuda:1", "")
    assert kind_of(device.id) == device.kind
    for pattern in ("cuda:1+inductor", "cuda+inductor", "*+inductor", "*"):
        assert device.matches(pattern)
    assert not device.matches("cuda")
    assert not device.matches("cuda:1")
    assert not device.eager.matches("*+inductor")
    assert not device.traits.accelerator, "a plain run never takes it"


def test_it_is_there_where_the_device_is() -> None:
    report = HardwareReport((Presence(CPU, True, "it is"), Presence(Device("cuda", "0"), False, "no driver")))
    here, absent = (report.find(Device.parse(text)) for text in ("cpu+inductor", "cuda:0+inductor"))
    assert here is not None
    assert (here.device.id, here.present) == ("cpu+inductor", True)
    assert absent is not None
    assert (absent.present, absent.reason) == (False, "no driver")
    assert report.present() == [CPU]


def test_a_third_party_kind() -> None:
    assert Device.parse("npu:0", extra_kinds=["npu"]) == Device("npu", "0")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("cuda", True),
        ("cuda:*", True),
        ("cuda:1", True),
        ("cuda:0", False),
        ("*", True),
        ("cu", False),
        ("CUDA:1", True),
    ],
)
def test_device_patterns(pattern: str, matches: bool) -> None:
    assert Device("cuda", "1").matches(pattern) is matches


@pytest.mark.parametrize(
    ("fields", "slug"),
    [
        ({"name": "meta-llama/Llama-2-7b"}, "meta-llama--Llama-2-7b"),
        ({"name": "./models/my bert", "path": "/a/models/my bert/"}, "my--bert"),
        ({"name": "a::b@c"}, "a--b--c"),
    ],
)
def test_slug_is_safe_in_test_ids_and_file_names(fields: dict[str, str], slug: str) -> None:
    assert spec(**fields).slug == slug


def test_cells_of_a_model_are_side_by_side_and_the_cpu_comes_first() -> None:
    devices = [Device("openvino", "CPU"), CPU]
    cells = expand_matrix([spec("a"), spec("b", dtypes=("fp32", "bf16"))], devices, (), lambda _: TINY)
    assert [cell.id for cell in cells] == [
        "a-cpu-fp32",
        "a-openvinocpu-fp32",
        "b-cpu-fp32",
        "b-cpu-bf16",
        "b-openvinocpu-fp32",
        "b-openvinocpu-bf16",
    ]
    assert [cell.id for cell in class_level(cells)] == ["a", "b"]
    assert all(cell.device == CLASS_LEVEL for cell in class_level(cells))


def test_dtypes_the_user_asked_for_replace_the_model_s_own() -> None:
    (cell,) = expand_matrix([spec("a", dtypes=("fp32", "bf16"))], [CPU], ["fp16"], lambda _: TINY)
    assert cell.dtype == "fp16"


def test_two_models_with_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a--b' and 'a/b'"):
        expand_matrix([spec("a/b"), spec("a--b")], [CPU], (), lambda _: TINY)


@pytest.mark.parametrize(
    ("device", "dtype", "weights", "covers"),
    [
        ("*", "*", "*", True),
        ("openvino", "fp32", "tiny", True),
        ("openvino:CPU", "fp32", "*", True),
        ("openvino:GPU*", "*", "*", False),
        ("*", "bf16", "*", False),
        ("*", "*", "pretrained", False),
    ],
)
def test_what_an_expectation_covers(device: str, dtype: str, weights: str, covers: bool) -> None:
    expectation = Expectation(device, dtype, Stage.COMPARE, "parity", "because", weights)
    assert expectation.covers(Cell(spec("a"), Device("openvino", "CPU"), "fp32", TINY)) is covers


def test_code_of_a_repository_takes_two_consents_or_its_exact_name() -> None:
    claimed = ModelSpec("a/b", "B", "fill-mask", hub_id="a/b", requires_remote_code=True)
    registered = ModelSpec(
        "a/b", "B", "fill-mask", hub_id="a/b", requires_remote_code=True, remote_code_registered=True
    )
    assert not claimed.may_run_its_code((REGISTERED,))
    assert registered.may_run_its_code((REGISTERED,))
    assert not registered.may_run_its_code(())
    assert claimed.may_run_its_code(("a/b",))
