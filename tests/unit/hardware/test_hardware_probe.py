"""The probes of this machine, and the command that prints them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.cli.hardware import format_devices
from pytest_hfaccel.core.spec import CPU, DEVICE_KINDS, Device
from pytest_hfaccel.hardware import HardwareReport, Presence, machine_facts, probe_devices

COUNT_HEAVY = """
import sys
started = []
STARTS = ("subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn")
sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)
from pytest_hfaccel.hardware import probe_devices
assert probe_devices().present()
print(sorted({"torch", "openvino", "transformers", "numpy"} & set(sys.modules)), started)
"""


def test_probing_imports_no_runtime_and_starts_no_process() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_every_kind_has_an_answer_with_a_reason() -> None:
    report = probe_devices()
    kinds = {presence.device.kind for presence in report.presences}
    assert kinds == set(DEVICE_KINDS) - {"fake"}
    assert all(presence.reason for presence in report.presences)
    assert report.present()[0] == CPU


def test_machine_facts_are_json_without_the_machines_name() -> None:
    import platform

    facts = machine_facts()
    text = json.dumps(facts)
    assert facts["cpu"]["cores"] >= 1
    assert facts["versions"]["pytest-hfaccel"]
    assert platform.node() not in text.replace(platform.release(), "")


def test_the_command_prints_one_line_per_device(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no earlier run has left reports, whose lines would follow
    assert main(["hardware", "--probe-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    devices = [line.split()[0] for line in lines[1:-2]]
    assert devices == [presence.device.id for presence in probe_devices().presences]
    assert lines[1].split()[1] == "present"


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--probe-only", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["confirmed"] == []
    assert data["probe"]["devices"][0]["device"] == "cpu"


def test_a_device_that_seems_present_but_does_not_compute() -> None:
    device = Device("cuda", "0")
    report = HardwareReport(
        (Presence(CPU, True, "2 cores"), Presence(device, True, "NVIDIA driver 580", "H200", 2**37))
    )
    confirmed = [Presence(CPU, True, "computed"), Presence(device, False, "the driver is too old")]
    table = format_devices(report, confirmed).splitlines()
    assert table[1].split() == ["cpu", "confirmed", "2", "cores"]
    assert table[2].split(maxsplit=5) == ["cuda:0", "failed", "H200", "128.0", "GiB", "the driver is too old"]


@pytest.mark.slow
def test_the_command_confirms_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    main(["hardware", "--json"])
    confirmed = json.loads(capsys.readouterr().out)["confirmed"]
    assert confirmed[0]["device"] == "cpu"
    assert confirmed[0]["present"]
