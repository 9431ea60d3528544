"""The table model x device, as people read it."""

from __future__ import annotations

import pytest

from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.reporting import model_device_rows, model_device_table
from pytest_hfaccel.reporting.reports import cell_text
from tests.unit.reporting.report_samples import make_result, sample_results


def test_the_table() -> None:
    assert model_device_table(sample_results(), width=120) == (
        "model [weights]           class     cpu fp32             openvino:CPU fp32  cpu bf16        cuda:0 fp16\n"
        "------------------------  --------  -------------------  -----------------  --------------  -----------\n"
        "bert-base-uncased [tiny]  1 passed  1 passed, 1 skipped  failed parity      -               -\n"
        "gpt2 [tiny]               -         -                    -                  xfailed parity  unavailable"
    )


def test_what_does_not_fit_goes_below() -> None:
    table = model_device_table(sample_results(), width=60)
    blocks = table.split("\n\n")
    assert len(blocks) == 3
    assert all(block.startswith("model [weights]") for block in blocks)
    assert max(map(len, table.splitlines())) <= 60
    headers = " ".join(block.splitlines()[0] for block in blocks)
    assert all(column in headers for column in model_device_rows(sample_results())[0][1:])


def test_a_single_column_too_wide_is_shown_all_the_same() -> None:
    assert len(model_device_table(sample_results(), width=10).split("\n\n")) == 5


def test_the_class_level_comes_first_and_weights_are_rows_of_their_own() -> None:
    cell = make_result("gpt2", "gpt", "cpu", "fp32", [CheckOutcome("parity")])
    other = make_result("gpt2", "gpt", "cpu", "fp32", [CheckOutcome("parity")])
    other.weights = "pretrained"
    once = make_result("gpt2", "gpt", "class", "fp32", [CheckOutcome("resolves")])
    assert model_device_rows([cell, other, once]) == [
        ["model [weights]", "class", "cpu fp32"],
        ["gpt2 [tiny]", "1 passed", "1 passed"],
        ["gpt2 [pretrained]", "-", "1 passed"],
    ]


def test_a_long_name_keeps_its_end() -> None:
    name = "/home/somebody/models/" + "x" * 40 + "/my-finetuned-bert"
    label = model_device_rows([make_result(name, "bert", "cpu", "fp32", [])])[1][0]
    assert label.startswith("...")
    assert label.endswith("/my-finetuned-bert [tiny]")
    assert len(label) == 44


@pytest.mark.parametrize(
    ("statuses", "incomplete", "expected"),
    [
        (["passed", "passed"], False, "2 passed"),
        (["passed", "skipped"], False, "1 passed, 1 skipped"),
        (["skipped"], False, "1 skipped"),
        (["passed", "failed"], False, "failed b"),
        (["failed", "failed", "passed"], False, "failed a +1"),
        (["failed", "crashed"], False, "crashed b +1"),
        (["out_of_memory", "skipped"], False, "out of memory a"),
        (["passed", "xfailed"], False, "xfailed b"),
        (["passed", "xpassed"], False, "xpassed b"),
        (["unavailable", "unavailable"], False, "unavailable"),
        (["hub_error"], False, "hub error a"),
        (["passed"], True, "incomplete, 1 passed"),
        (["failed"], True, "failed a"),
        ([], False, "nothing ran"),
    ],
)
def test_a_cell_in_words(statuses: list[str], incomplete: bool, expected: str) -> None:
    checks = [CheckOutcome(name, Status(status), Stage.RUN) for name, status in zip("abc", statuses, strict=False)]
    result = make_result("gpt2", "gpt", "cpu", "fp32", checks, incomplete=incomplete)
    assert cell_text(result) == expected


def test_a_column_of_a_software_adapter_says_so() -> None:
    check = CheckOutcome("parity")
    ran = make_result("gpt2", "gpt", "webgpu", "fp32", [check], implementation="emulated")
    absent = make_result("bert", "bert", "webgpu", "fp32", [check], implementation="unavailable")
    assert model_device_rows([ran, absent])[0] == ["model [weights]", "webgpu fp32 (emulated)"]
