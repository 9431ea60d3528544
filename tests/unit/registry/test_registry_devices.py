"""The section `devices:` of a registry file: devices of torch that it makes known, and its mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hfaccel.core.devices import kind_named, unregister_kind
from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.registry import load_registry
from pytest_hfaccel.registry.devices import register_devices

_HEAD = "version: 1\ndevices:\n  acmechip:\n    "


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    unregister_kind("acmechip")


def registry(folder: Path, text: str) -> Path:
    file = folder / "chips.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_is_described_is_a_device(tmp_path: Path) -> None:
    register_devices([registry(tmp_path, _HEAD + "package: torch_acme\n    module: acme\n    dtypes: [fp32]\n")])
    device = Device.parse("acmechip", ["acmechip"])
    assert device.id == "acmechip:0"
    assert device.torch_name == "acme:0"
    assert device.traits.torch_module
    assert device.traits.accelerator
    described = kind_named("acmechip").torch
    assert described is not None
    assert (described.dtypes, described.synchronize) == (("fp32",), "synchronize")


def test_the_module_is_named_like_the_kind(tmp_path: Path) -> None:
    register_devices([registry(tmp_path, _HEAD + "package: torch_acme\n")])
    assert Device("acmechip", "1").torch_name == "acmechip:1"


def test_expectations_may_name_it(tmp_path: Path) -> None:
    text = (
        _HEAD + "package: torch_acme\nmodels:\n  m:\n    architecture: BertModel\n    task: feature-extraction\n    "
        "expect: [{device: 'acmechip:*', stage: load, reason: lacks memory}]\n"
    )
    assert load_registry([registry(tmp_path, text)]).get("m").expect[0].device == "acmechip:*"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            _HEAD + "modul: acme\n",
            "4: {}modul: 'modul' is not a key here. Did you mean 'module'?\nAllowed:",
        ),
        (
            _HEAD + "dtypes: [fp61]\n",
            "4: {}dtypes[0]: 'fp61' is not a dtype. Did you mean 'fp16'?\nAllowed:",
        ),
        (
            _HEAD + "package: a b\n",
            "4: {}package: 'a b' is not a package to import, such as 'torch_npu'.",
        ),
        (_HEAD + "seed: 1\n", "4: {}seed: 1 is not text; put it in quotes."),
        (
            _HEAD + "device_files: davinci0\n",
            "4: {}device_files: 'davinci0' is not an absolute wildcard",
        ),
        (
            "version: 1\ndevices:\n  cuda: {}\n",
            "3: devices.cuda: 'cuda' is not a name for a device: it is a built-in kind.",
        ),
        ("version: 1\ndevices:\n  Acme: {}\n", "3: devices.Acme: 'Acme' is not a kind of device in lower case"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = registry(tmp_path, text)
    for read in (load_registry, register_devices):
        with pytest.raises(RegistryError) as caught:
            read([file])
        assert str(caught.value).startswith("chips.yaml:" + problem.format("devices.acmechip."))
