"""The table of device kinds, and what a third party adds to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.core.devices import BUILT_IN, DeviceKind, Traits, kind_named, register_kind
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import confirm_devices, probe_devices


class Accelerator:
    """A third party's backend, of a device kind that each test names."""

    name = "accelerator"
    traits = Traits(accelerator=True, torch_module=True, exported=False)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def load(self, cell: object, source: object) -> object:
        raise NotImplementedError

    def probe(self) -> list[Presence]:
        return [Presence(Device(self.kind, "0"), True, "plugged in")]

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, object]:
        return {"name": f"{device} at {dtype}"}


class Broken(Accelerator):
    def probe(self) -> list[Presence]:
        raise OSError("bus error")


def with_backend(backend: Accelerator) -> Backends:
    backends = Backends()
    backends.register(backend.kind, backend)  # type: ignore[arg-type]  # of load it needs the name only
    return backends


@pytest.mark.parametrize(
    ("devices", "best"),
    [
        (["cpu", "openvino:CPU"], "cpu"),
        (["cpu", "openvino:CPU", "openvino:NPU"], "cpu"),
        (["cpu", "openvino:CPU", "openvino:GPU"], "openvino:GPU"),
        (["cpu", "mps", "openvino:GPU"], "mps"),
        (["cpu", "rocm:0", "cuda:1", "cuda:0"], "cuda:0"),
    ],
)
def test_the_best_device(devices: list[str], best: str) -> None:
    report = HardwareReport(tuple(Presence(Device.parse(name), True, "") for name in devices))
    assert report.best().id == best


def test_a_third_partys_accelerator_precedes_the_cpu_and_no_gpu() -> None:
    backends = with_backend(Accelerator("npu-of-acme"))
    acme = backends.probe()[0]
    cpu, gpu = Presence(Device("cpu"), True, ""), Presence(Device("cuda", "0"), True, "")
    assert HardwareReport((cpu, acme)).best() == acme.device
    assert HardwareReport((cpu, acme, gpu)).best() == gpu.device


def test_a_third_partys_device_is_found_confirmed_and_has_its_traits() -> None:
    backends = with_backend(Accelerator("found-of-acme"))
    device = Device("found-of-acme", "0")
    presence = probe_devices(backends=backends).find(device)
    assert presence is not None
    assert presence.present
    assert confirm_devices([device], backends)[0].name == "found-of-acme:0 at fp32"
    assert device.traits.torch_module
    assert not device.traits.exported


def test_a_probe_that_raises_is_an_absence() -> None:
    (presence,) = with_backend(Broken("broken-of-acme")).probe()
    assert not presence.present
    assert presence.reason == "its backend failed to answer: OSError: bus error"


def test_the_fake_backend_is_not_searched_for() -> None:
    assert not [each for each in probe_devices().presences if each.device.kind == "fake"]
    assert confirm_devices([Device("fake", "0")]) == []


def test_built_in_kinds_are_not_replaced() -> None:
    with pytest.raises(ValueError, match="'cuda' is a built-in kind of device"):
        register_kind(DeviceKind("cuda"))


def test_a_kind_nobody_registered_has_the_default_traits() -> None:
    assert kind_named("unheard-of").traits == Traits()


@pytest.mark.parametrize(
    ("device", "name"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("rocm:0", "cuda:0"), ("mps", "mps"), ("openvino", "")]
)
def test_torchs_names(device: str, name: str) -> None:
    assert Device.parse(device).torch_name == name


@pytest.mark.parametrize("kind", [kind.name for kind in BUILT_IN.values() if kind.is_searched])
def test_every_kind_is_documented(kind: str) -> None:
    docs = Path(__file__).parents[3] / "docs"
    assert f"`{kind}`" in (docs / "hardware_detection.md").read_text(encoding="utf-8")


def test_what_runs_on_the_processor() -> None:
    exact = {kind for kind in BUILT_IN if Device.parse(kind).traits.is_exact(Device.parse(kind).target)}
    assert exact == {"cpu", "executorch", "onnxruntime", "openvino", "wasm"}
    assert not Device.parse("openvino:GPU").traits.is_exact("GPU")
    assert Device.parse("fake:0").traits.uses_host_memory("0")
    assert not Device.parse("cuda:0").traits.uses_host_memory("0")
