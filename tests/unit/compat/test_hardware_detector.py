"""The detector, on machines that are not here."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HARDWARE_TYPES, HardwareDetector, Presence
from tests.unit.compat.hardware_fakes import Machine, seen


def detector_of(machine: Machine) -> HardwareDetector:
    return HardwareDetector(probe=machine.probe, confirm=machine.confirm)


def detect(*names: str, broken: Iterable[str] = ()) -> HardwareDetector:
    return detector_of(Machine(*map(seen, names), broken=broken))


@pytest.mark.parametrize(
    ("names", "best", "torch_device"),
    [
        ((), "cpu", "cpu"),
        (("openvino:CPU",), "openvino", "cpu"),
        (("openvino:CPU", "mps"), "mps", "mps"),
        (("openvino:GPU", "xpu:0"), "xpu", "xpu:0"),
        (("rocm:0", "openvino:CPU"), "rocm", "cuda:0"),
        (("cuda:0", "xpu:0", "openvino:CPU"), "cuda", "cuda:0"),
    ],
)
def test_the_best_hardware_and_its_torch_device(names: tuple[str, ...], best: str, torch_device: str) -> None:
    detector = detect(*names)
    assert detector.get_best_available_hardware() == best
    assert detector.get_torch_device() == torch_device


def test_every_kind_is_answered_for_and_what_is_absent_has_a_reason() -> None:
    detector = detect("cuda:0")
    available = detector.get_available_hardware()
    assert tuple(available) == HARDWARE_TYPES
    assert {kind for kind, here in available.items() if here} == {"cuda", "cpu"}
    assert set(detector.get_errors()) == set(HARDWARE_TYPES) - {"cuda", "cpu"}
    assert all(detector.get_errors().values())


def test_a_rocm_machine_is_not_also_cuda() -> None:
    detector = detect("rocm:0", "rocm:1")
    assert (detector.is_available("rocm"), detector.is_available("cuda")) == (True, False)
    assert detector.get_torch_device_with_priority(["cuda", "rocm"], 1) == "cuda:1"
    assert detector.get_cuda_details()["device_count"] == 0


def test_a_device_whose_runtime_does_not_answer_is_absent() -> None:
    detector = detect("cuda:0", broken=["cuda:0"])
    assert not detector.is_available("cuda")
    assert detector.get_errors()["cuda"] == "the driver is too old"
    assert detector.get_torch_device() == "cpu"
    details = detector.get_cuda_details()
    assert details == {"available": False, "device_count": 0, "devices": [], "reason": "the driver is too old"}


def test_a_device_no_runtime_was_asked_about_is_absent() -> None:
    machine = Machine(seen("cuda:0"))
    detector = HardwareDetector(probe=machine.probe, confirm=lambda _: [])
    assert not detector.is_available("cuda")
    assert "no runtime was asked" in detector.get_errors()["cuda"]


def test_an_emulated_device_is_not_hardware() -> None:
    emulated = Presence(Device("webgpu"), True, "SwiftShader", details={"implementation": "emulated"})
    machine = Machine(emulated)
    detector = HardwareDetector(probe=machine.probe, confirm=lambda _: [emulated])
    assert not detector.is_available("webgpu")
    assert detector.get_errors()["webgpu"].startswith("emulated in software")


def test_environment_variables_invent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = HardwareDetector(confirm=Machine().confirm).get_available_hardware()
    for name in ("WEBGPU_AVAILABLE", "WEBNN_AVAILABLE", "WEBGPU_SIMULATION", "WEBNN_SIMULATION", "QUALCOMM_SDK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ROCM_HOME", "/opt/rocm")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "0")
    after = HardwareDetector(confirm=Machine().confirm).get_available_hardware()
    assert after == before
    assert not after["qualcomm"]


@pytest.mark.parametrize("index", [7, -1])
def test_a_bad_index_takes_the_first_device_and_says_so(index: int) -> None:
    detector = detect("cuda:0", "cuda:1")
    assert detector.get_device_with_index(1) == "cuda:1"
    assert "cuda:1" not in detector.get_errors()
    assert detector.get_device_with_index(index) == "cuda:0"
    assert "cuda:0 is taken instead" in detector.get_errors()[f"cuda:{index}"]


def test_the_first_device_that_answers_is_taken() -> None:
    detector = detect("cuda:0", "cuda:1", broken=["cuda:0"])
    assert detector.get_torch_device() == "cuda:1"
    assert detector.get_errors()["cuda:0"] == "the driver is too old"
    assert detector.get_hardware_details()["cuda"]["device_count"] == 1


def test_a_priority_list() -> None:
    detector = detect("cuda:0", "openvino:CPU")
    assert detector.get_hardware_by_priority(["mps", "openvino", "cuda"]) == "openvino"
    assert detector.get_hardware_by_priority(["mps", "rocm"]) == "cpu"
    assert detector.get_hardware_by_priority([]) == "cpu"
    assert detector.get_torch_device_with_priority(["mps", "cuda"], preferred_index=0) == "cuda:0"
    assert detector.get_torch_device_with_priority(["openvino", "cuda"]) == "cpu"


def test_a_name_that_is_no_kind_of_hardware() -> None:
    detector = detect()
    with pytest.raises(ConfigError, match=r"priority_list: 'cuda:1' is not a kind of hardware. Allowed: cuda, rocm"):
        detector.get_hardware_by_priority(["cuda:1", "cpu"])
    with pytest.raises(ConfigError, match="hardware_type: 'gpu'"):
        detector.is_available("gpu")
    with pytest.raises(ConfigError, match="model_requirements: 'tpu'"):
        detector.get_compatible_hardware_types({"tpu": {}})


def test_compatible_hardware() -> None:
    detector = detector_of(Machine(seen("cuda:0", memory_gb=2), seen("cuda:1", memory_gb=4), seen("openvino:CPU")))
    assert detector.get_compatible_hardware_types({}) == ["cuda", "openvino", "cpu"]
    assert detector.get_compatible_hardware_types({"cuda": {"memory_required": 4096}})[0] == "cuda"
    assert detector.get_compatible_hardware_types({"cuda": {"memory_required": 4097}}) == ["openvino", "cpu"]
    assert detector.get_compatible_hardware_types({"cuda": {"memory_usage": {"peak": 9000}}, "cpu": False}) == [
        "openvino"
    ]
    assert detector.get_compatible_hardware_types({"openvino": {"compatible": False}, "mps": {"compatible": True}}) == [
        "cuda",
        "cpu",
    ]


def test_details_have_what_probe_and_runtime_say() -> None:
    (device,) = detect("cuda:0").get_hardware_details()["cuda"]["devices"]
    assert device == {
        "driver": "1",
        "compute_capability": "9.0",
        "device": "cuda:0",
        "name": "a cuda:0",
        "total_memory": 16.0,
        "reason": "driver 1; computed",
    }


def test_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    detector = detect("cuda:0")
    detector.print_summary()
    assert capsys.readouterr().out.splitlines() == [
        "Available hardware: cuda, cpu",
        "Best available hardware: cuda",
        "PyTorch device: cuda:0",
    ]
    detector.print_summary(detailed=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  cuda:0: a cuda:0, 16.0 GB, driver 1; computed"
    assert lines[5] == "Not available:"
    assert any(line.startswith("  qualcomm: no backend") for line in lines)


def test_many_threads_ask_the_runtimes_once() -> None:
    machine = Machine(seen("cuda:0"), seen("cuda:1"))
    detector = detector_of(machine)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda index=index: answers.append(detector.get_device_with_index(index)))
        for index in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["cuda:0"] * 15 + ["cuda:1"]
    assert machine.asked == [["cuda:0", "cuda:1"]]
    assert sum("taken instead" in reason for reason in detector.get_errors().values()) == 14
