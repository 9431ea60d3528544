"""Remembering traces: in the process and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.tracing import traces
from pytest_hfaccel.tracing.recording import Recording
from pytest_hfaccel.tracing.traces import trace_of, traces_of
from tests.unit.tracing.test_tracing_scaling import add, recording
from tests.unit.tracing.tracing_models import BERT, MODELS


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts like a new process."""
    monkeypatch.setattr(traces, "_memory", type(traces._memory)())


def new_process() -> None:
    traces._memory.clear()


class Records:
    """Stands for a model on fake tensors; counts what is asked of it."""

    def __init__(self, operators: Any = lambda batch: (add(batch),)) -> None:
        self.asked: list[int] = []
        self._operators = operators

    def stand_in(self, *_: object, **__: object) -> Records:
        return self

    def record(self, batch: int) -> Recording:
        self.asked.append(batch)
        return recording(batch, *self._operators(batch))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    pytest.importorskip("torch")
    made = Records()
    monkeypatch.setattr("pytest_hfaccel.tracing.torch.fake_model.FakeModel", made.stand_in)
    return made


@pytest.mark.slow
def test_all_batches_and_dtypes_come_from_one_trace(records: Records, tmp_path: Path) -> None:
    found = [
        trace_of("Some", {}, batch=batch, length=8, dtype=dtype, cache_dir=tmp_path)
        for batch in (1, 8, 64)
        for dtype in ("fp32", "bf16", "int8")
    ]
    assert records.asked == [1, 2]
    assert {(one.batch, one.dtype) for one in found} == {(b, d) for b in (1, 8, 64) for d in ("fp32", "bf16", "int8")}
    assert trace_of("Some", {}, batch=64, length=8, dtype="int8", cache_dir=tmp_path) is found[-1]


@pytest.mark.slow
def test_the_next_process_reads_a_file(records: Records, tmp_path: Path) -> None:
    first = trace_of("Some", {"n": 1}, batch=8, length=8, cache_dir=tmp_path)
    new_process()
    assert trace_of("Some", {"n": 1}, batch=8, length=8, cache_dir=tmp_path) == first
    assert records.asked == [1, 2]
    trace_of("Some", {"n": 2}, batch=8, length=8, cache_dir=tmp_path)
    assert records.asked == [1, 2, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"first": {}}', "null"])
def test_a_damaged_file_is_replaced(records: Records, tmp_path: Path, damage: str) -> None:
    first = traces_of("Some", {}, length=8, cache_dir=tmp_path)
    (file,) = (tmp_path / "traces").iterdir()
    whole = file.read_text()
    file.write_text(damage)
    new_process()
    assert traces_of("Some", {}, length=8, cache_dir=tmp_path) == first
    assert file.read_text() == whole
    assert records.asked == [1, 2, 1, 2]


@pytest.mark.slow
def test_another_version_of_a_library_is_another_trace(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces_of("Some", {}, length=8, cache_dir=tmp_path)
    monkeypatch.setattr(traces, "_versions", lambda: ("9", "9", "1"))
    traces_of("Some", {}, length=8, cache_dir=tmp_path)
    assert records.asked == [1, 2, 1, 2]
    assert len(list((tmp_path / "traces").iterdir())) == 2


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_only_time(records: Records, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert traces_of("Some", {}, length=8, cache_dir=tmp_path / "file").is_scalable
        new_process()
    assert records.asked == [1, 2, 1, 2]


@pytest.mark.slow
def test_what_does_not_scale_is_traced_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Records(lambda batch: (add(batch),) * batch)
    monkeypatch.setattr("pytest_hfaccel.tracing.torch.fake_model.FakeModel", growing.stand_in)
    found = trace_of("Some", {}, batch=5, length=8, cache_dir=tmp_path)
    assert found.operators[0].count == 5
    new_process()
    assert trace_of("Some", {}, batch=5, length=8, cache_dir=tmp_path) == found
    assert growing.asked == [1, 2, 3, 5]


@pytest.mark.slow
def test_a_failure_is_remembered_in_the_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def failing(architecture: str, *_: Any, **__: Any) -> Any:
        tried.append(architecture)
        raise LoadError("no such thing")

    monkeypatch.setattr("pytest_hfaccel.tracing.torch.fake_model.FakeModel", failing)
    for _ in range(2):
        with pytest.raises(LoadError, match="no such thing"):
            trace_of("Some", {}, batch=1, length=8, cache_dir=tmp_path)
    assert tried == ["Some"]
    assert not (tmp_path / "traces").exists()


def test_mistakes_are_told_before_anything_is_built() -> None:
    def asked(**how: Any) -> Any:
        return trace_of("Some", {}, **{"batch": 1, "length": 8, "cache_dir": None, **how})

    with pytest.raises(ConfigError, match="'fp61' is not a dtype"):
        asked(dtype="fp61")
    with pytest.raises(ConfigError, match=r"not trained at 'int8'. Allowed: fp32, bf16"):
        asked(dtype="int8", training=True)
    with pytest.raises(ConfigError, match="batch is 0"):
        asked(batch=0)
    with pytest.raises(ConfigError, match="length is -1"):
        asked(length=-1)


@pytest.mark.slow
def test_real_models() -> None:
    trace = trace_of("BertForMaskedLM", BERT, batch=3, length=600, cache_dir=None)
    assert (trace.batch, trace.length) == (3, 512)  # as many positions as it has
    with pytest.raises(ConfigError, match="takes text: length is 0"):
        trace_of("BertForMaskedLM", BERT, batch=1, length=0, cache_dir=None)
    vit = MODELS["ViTForImageClassification"]
    assert trace_of("ViTForImageClassification", vit, batch=1, length=0, cache_dir=None).flops > 0
    with pytest.raises(LoadError, match="BertForNothing"):
        trace_of("BertForNothing", {}, batch=1, length=8, cache_dir=None)
