"""`hfaccel explain --issue`: a report that can be pasted, with nothing private in it."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.explain import cause
from pytest_hfaccel.explain.cause import DIFFERS, Experiment, decide
from pytest_hfaccel.explain.upstream_issue import Finding, without_private, write_issue

TOKEN = "hf_" + "a1B2" * 8
EXPERIMENTS = [
    Experiment(cause.AGAIN, DIFFERS, 3e-2, 2e-5, "logits", "parity failed: logits: rel-L2 0.03 > 2e-05"),
    Experiment(cause.INTERPRETED, DIFFERS, 3e-2, 2e-5, "logits", "see /home/alice/secret/graph.onnx"),
]


def finding(directory: Path, **changes: Any) -> Finding:
    spec = ModelSpec("./mine", "BertForMaskedLM", "fill-mask", path=str(directory / "alice" / "mine"))
    cell = Cell(spec, Device("onnxruntime", "CPU"), "fp32", WeightsChoice(Weights.PRETRAINED, "a directory"))
    values: dict[str, Any] = {
        "cell": cell,
        "reason": f"logits of {directory}/alice/mine: rel-L2 0.03, see https://alice:pass@hub.example/{TOKEN}",
        "verdict": decide("parity", EXPERIMENTS, "fp32"),
        "divergence": [f"First divergence: a.b, on {socket.gethostname()}", "  off by 3e-2"],
    }
    return Finding(**{**values, **changes})


def test_a_report_has_all_that_a_maintainer_asks_for(tmp_path: Path) -> None:
    text = write_issue(finding(tmp_path))
    title, *_ = text.splitlines()
    assert title == "# BertForMaskedLM on ONNX Runtime (CPU, fp32): logits off by 3.0e-02 (relative L2)"
    for heading in ("Expected and got", "First divergence", "Experiments", "Reproduce", "Versions"):
        assert f"## {heading}" in text
    assert "- expected: `logits` within a relative L2 error of 2.0e-05" in text
    assert "- got: 3.0e-02" in text
    assert f"| {cause.INTERPRETED} | differs | 3.0e-02 | 2.0e-05 | see graph.onnx |" in text
    assert f"- torch {torch.__version__}" in text
    assert "onnxruntime" in text.partition("## Versions")[2]
    assert "transformers.exporters" in text


def test_nothing_private_is_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    text = write_issue(finding(tmp_path))
    for private in (TOKEN, "alice", "/home/", str(tmp_path), "pass@", f"on {socket.gethostname()}"):
        assert private not in text, private
    assert not re.search(r"(?<![\w.:/])/\w+/\w", text)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("File /usr/lib/python3/x.py, line 3", "File x.py, line 3"),
        ("~/models/mine/config.json", "config.json"),
        (r"C:\Users\alice\model.onnx is gone", "model.onnx is gone"),
        ("a 2x9/32 of https://github.com/a/b/issues/3", "a 2x9/32 of https://github.com/a/b/issues/3"),
        ("bert.encoder.layer.1/MatMul_3", "bert.encoder.layer.1/MatMul_3"),
        (f"Bearer abcdefgh12345678 and {TOKEN}", "Bearer *** and hf_***"),
    ],
)
def test_private_parts_of_a_text(text: str, safe: str) -> None:
    assert without_private(text) == safe


def test_a_script_comes_with_its_data(tmp_path: Path) -> None:
    script = tmp_path / "repro_mine.py"
    script.write_text("import torch\nprint(1)\n", encoding="utf-8")
    values = torch.arange(300.0)
    torch.save({"args": [values]}, script.with_suffix(".pt"))
    text = write_issue(finding(tmp_path, script=script, printed="relative L2 error 3.0e-02"))
    assert "```python\nimport torch\nprint(1)\n```" in text
    (block,) = re.findall(r"<details>\n\n```\n(.*?)\n```", text, re.DOTALL)
    again = tmp_path / "again.pt"
    again.write_bytes(base64.b64decode(block))
    assert torch.equal(torch.load(again, weights_only=True)["args"][0], values)
    torch.save({"args": [torch.zeros(30_000)]}, script.with_suffix(".pt"))
    assert "is attached." in write_issue(finding(tmp_path, script=script))


def test_the_command_prints_a_report(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    from transformers.models.bert import modeling_bert

    right = modeling_bert.BertOutput.forward

    def forward(self: Any, hidden_states: Any, input_tensor: Any) -> Any:
        self.LayerNorm.eps = 1e-2 if hidden_states.dtype == torch.float32 else 1e-12
        return right(self, hidden_states, input_tensor)

    monkeypatch.setattr(modeling_bert.BertOutput, "forward", forward)
    wanted = ["explain", "bert-base-uncased", "--device", "cpu", "--weights", "tiny"]
    assert main([*wanted, "--issue"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("# BertForMaskedLM on torch (cpu, fp32): logits off by ")
    assert "Probably a matter for transformers" in text
    assert "eps = 0.01, in the reference 1e-12" in text
    assert str(shared_cache) not in text
    assert main([*wanted, "--issue", "--json"]) == 1
    assert "leave one out" in capsys.readouterr().err


def test_there_is_nothing_to_report_of_a_right_model(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    assert main(["explain", "bert-base-uncased", "--device", "cpu", "--weights", "tiny", "--issue"]) == 1
    assert "there is nothing to report" in capsys.readouterr().err
