"""Described devices are looked for by their package, their driver's files and the variables that hide them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.devices import register_kind, torch_kind, unregister_kind
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.described import probe_described
from pytest_hfaccel.hardware.precisions import precision_support


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    unregister_kind("acmechip")


def probe(root: Path = Path("/"), environ: dict[str, str] | None = None, **description: Any) -> list[Presence]:
    register_kind(torch_kind("acmechip", **description))
    return [each for each in probe_described(root, environ or {}) if each.device.kind == "acmechip"]


def test_its_package_is_not_installed() -> None:
    (presence,) = probe(package="torch_acme_that_nobody_has")
    assert not presence.present
    assert presence.reason == "its package 'torch_acme_that_nobody_has' is not installed"


def test_its_package_is_the_only_sign() -> None:
    (presence,) = probe(package="pytest")
    assert presence.present
    assert presence.device == Device("acmechip", "0")
    assert presence.reason.startswith("pytest ")


def test_the_files_of_its_driver_are_counted(tmp_path: Path) -> None:
    (absent,) = probe(tmp_path, device_files="/dev/acme[0-9]*")
    assert absent.reason == "its driver has made no file /dev/acme[0-9]*"
    (tmp_path / "dev").mkdir()
    for index in range(3):
        (tmp_path / "dev" / f"acme{index}").touch()
    description: dict[str, Any] = {"device_files": "/dev/acme[0-9]*", "visible_devices": ["ACME_VISIBLE"]}
    assert [each.device.id for each in probe(tmp_path, **description)] == ["acmechip:0", "acmechip:1", "acmechip:2"]
    two = probe(tmp_path, {"ACME_VISIBLE": "2,0"}, **description)
    assert [each.device.id for each in two] == ["acmechip:0", "acmechip:1"]
    assert "ACME_VISIBLE='2,0' shows 2 of 3" in two[0].reason
    (none,) = probe(tmp_path, {"ACME_VISIBLE": ""}, **description)
    assert not none.present


def test_the_precisions_of_its_description() -> None:
    (presence,) = probe(package="pytest", dtypes=["fp32"])
    assert precision_support(presence, "fp32").runs
    assert not precision_support(presence, "bf16").runs


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ({"modul": "acme"}, "device 'acmechip': 'modul' is not a key here. Allowed: module, package, seed"),
        ({"dtypes": ["fp8"]}, "device 'acmechip': 'fp8' is not a dtype. Allowed: fp64, fp32, bf16, fp16, int8."),
        ({"dtypes": "fp32"}, "device 'acmechip': dtypes: 'fp32' is not a list of names."),
        ({"seed": None}, "device 'acmechip': seed: None is not text."),
    ],
)
def test_a_bad_description(description: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        torch_kind("acmechip", **description)
    assert caught.value.message.startswith(problem)
