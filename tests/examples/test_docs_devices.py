"""The examples of `docs/devices.md` work, and its tables name what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from pytest_hfaccel.core.devices import TorchDevice, kind_named, unregister_kind
from pytest_hfaccel.registry.devices import register_devices

TEXT = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_the_description_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    file = tmp_path / "chips.yaml"
    file.write_text(example, encoding="utf-8")
    register_devices([file])
    try:
        described = kind_named("npu").torch
    finally:
        unregister_kind("npu")
    assert described is not None
    assert described.package == "torch_npu"


def test_every_key_of_a_description_is_documented() -> None:
    section = TEXT.partition("| key |")[2].partition("\n\n")[0]
    assert {field.name for field in fields(TorchDevice)} == set(re.findall(r"`(\w+)`", "".join(firsts(section))))


def firsts(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
