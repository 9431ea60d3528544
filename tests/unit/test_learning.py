"""What is learned from measured rows: tested on devices whose law is known, so that the right answer is known, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace, Operator
from tests.unit.calibrations import even_calibration

if TYPE_CHECKING:
    from pytest_hfaccel.predict.learning.rows import Row

pytestmark = pytest.mark.slow  # scikit-learn takes seconds to import
MIB = 2**20
CALIBRATION = even_calibration()


def trace(width: int, layers: int, batch: int, copies: int = 1) -> ModelTrace:
    """A model of `layers` matrix products and activations."""
    flops, written = 2 * 32 * batch * width * width, 4 * 32 * batch * width
    operators = (
        Operator(
            "addmm", ((width,), (32 * batch, width), (width, width)), (32 * batch, width), flops, 0, 0, count=layers
        ),
        Operator("gelu", ((32 * batch, width),), (32 * batch, width), 0, written, written, count=layers),
        Operator("clone", ((32 * batch, width),), (32 * batch, width), 0, written, written, count=copies * layers),
    )
    weights = 4 * layers * width * width
    return ModelTrace(
        "BertModel", batch, 32, "fp32", False, weights // 4, weights, weights, 8 * written, written, operators
    )


Law = Callable[[ModelTrace, dict[str, float]], float]


def rows(law: Law, memory: Callable[[ModelTrace], float] = lambda _: 1.0 * MIB) -> list[Row]:
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
    from pytest_hfaccel.predict.learning.rows import Row, point_of

    roofline = OperatorRoofline(CALIBRATION)
    found = []
    for number, width in enumerate((64, 128, 192, 256, 384, 512, 640, 768)):
        for batch in (1, 2, 4, 8):
            one = trace(width, 2 + number, batch, copies=1 + number % 3)
            seconds = law(one, roofline.breakdown(one))
            found.append(Row(point_of(one, roofline), seconds, int(memory(one)), f"group{number}"))
    return found


def fused(_trace: ModelTrace, groups: dict[str, float]) -> float:
    """A runtime that fuses activations, moves nothing and needs a quarter more for its products."""
    return 1.25 * groups["matrix"] + 1e-4


def test_a_runtime_that_fuses_operators_is_learned_from_other_models() -> None:
    from pytest_hfaccel.predict.learning.training import fit

    model = fit(rows(fused), CALIBRATION)
    assert model.latency_error < 0.08
    low, high = model.latency_interval
    assert 0.8 < low <= 1.0 <= high < 1.25
    assert (model.rows, model.relatives) == (32, 8)


def test_memory_is_learned_from_other_models() -> None:
    from pytest_hfaccel.predict.learning.training import fit

    def twice(one: ModelTrace) -> float:
        return 2 * one.weight_bytes + 3 * one.activation_bytes + 5 * MIB

    model = fit(rows(fused, twice), CALIBRATION)
    assert model.memory_error is not None
    assert model.memory_error < 0.05


def test_rows_whose_memory_is_not_known_still_teach_latency() -> None:
    from pytest_hfaccel.predict.learning.training import fit

    model = fit([replace(row, memory_bytes=None) for row in rows(fused)], CALIBRATION)
    assert model.memory is None
    assert model.memory_interval is None
    assert model.latency_error < 0.08


def test_relatives_are_never_split() -> None:
    from pytest_hfaccel.predict.learning.training import folds

    given = rows(fused)
    pairs = folds(given, most=3)
    assert len(pairs) == 3
    assert sum(len(held) for _, held in pairs) == len(given)
    for training, held in pairs:
        assert not {row.relatives for row in training} & {row.relatives for row in held}


def test_the_interval_holds_the_share_it_promises() -> None:
    import numpy as np

    from pytest_hfaccel.predict.learning.training import interval_factors

    errors = np.random.default_rng(0).normal(0.0, 0.1, 20_000)
    low, high = interval_factors(errors)
    assert np.mean((np.log(low) <= errors) & (errors <= np.log(high))) == pytest.approx(0.8, abs=0.01)


def test_weights_are_never_negative_and_stay_where_nothing_speaks_against_them() -> None:
    import numpy as np

    from pytest_hfaccel.predict.learning.models import fit_weights

    columns = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 1.0], [3.0, 0.0, 5.0]])
    target = columns @ np.array([2.0, 0.0, 0.0])
    found = fit_weights(columns, target, prior=np.array([1.0, 0.7, 1.0]), pull=np.array([1e-3, 1e-3, 1e-3]))
    assert found == pytest.approx([2.0, 0.7, 0.0], abs=0.01)
    assert fit_weights(columns, columns[:, 0], np.zeros(3), np.zeros(3)).min() >= 0


def test_the_layer_answers_with_an_interval_and_its_basis() -> None:
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
    from pytest_hfaccel.predict.layers.roofline import LearnedLayer
    from pytest_hfaccel.predict.learning.models import TrainedModels
    from pytest_hfaccel.predict.learning.training import fit

    layer = LearnedLayer(TrainedModels([fit(rows(fused), CALIBRATION)]))
    unseen = trace(320, 5, 4)
    found = layer.predict(Question("LlamaModel", "cpu", batch=4), unseen)
    assert found is not None
    assert found.source == Source.LEARNED
    assert found.rows == 32
    assert "8 kinds of models" in found.basis
    assert found.latency_ms is not None
    expected = 1e3 * fused(unseen, OperatorRoofline(CALIBRATION).breakdown(unseen))
    assert found.latency_ms.value == pytest.approx(expected, rel=0.1)
    assert layer.predict(Question("LlamaModel", "cuda"), unseen) is None
    assert "cpu-fp32-inference-1" in layer.why_not(Question("LlamaModel", "cuda"))


def test_trained_models_are_saved_and_loaded(tmp_path: Path) -> None:
    from pytest_hfaccel.predict.learning.models import TrainedModels
    from pytest_hfaccel.predict.learning.training import fit

    given = rows(fused)
    model = fit(given, CALIBRATION)
    TrainedModels([model]).save(tmp_path / "models")
    (loaded,) = TrainedModels.load(tmp_path / "models")
    points = [row.point for row in given]
    assert loaded.latency.predict(points) == pytest.approx(model.latency.predict(points))
    assert loaded.calibration == CALIBRATION


@pytest.mark.parametrize("content", [None, b"", b"not a pickle"])
def test_models_that_cannot_be_loaded_are_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    from pytest_hfaccel.predict.learning.models import TrainedModels

    if content is not None:
        (tmp_path / "cpu.joblib").write_bytes(content)
    with pytest.raises(ConfigError, match=r"no trained models|cannot be read"):
        TrainedModels.load(tmp_path)


def measurement(architecture: str, milliseconds: float = 5.0, **changes: Any) -> Any:
    from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise

    latency = Latency(10, 3, *([milliseconds] * 6), 0.1, 0.01)
    fields = {"batch": 1, "length": 8, "threads": 1, "details": {"dims": {}}, **changes}
    return Measurement(
        "m",
        architecture,
        "t",
        "random",
        "cpu",
        "chip",
        "fp32",
        "fp32",
        latency=latency,
        noise=Noise(1.0, 1.0, 0.0),
        **fields,
    )


def test_what_cannot_be_trained_is_said_and_not_raised(tmp_path: Path) -> None:
    from pytest_hfaccel.predict.learning.training import train

    trained = train([measurement("BertModel")], [], tmp_path)
    assert not trained.models
    assert "no calibration (hfaccel calibrate cpu)" in trained.left_out[0]
    tiny = replace(measurement("BertModel"), weights="tiny")
    assert train([tiny], [CALIBRATION], tmp_path).left_out == []


def test_relatives_are_what_the_row_says_or_the_class_without_its_head() -> None:
    from pytest_hfaccel.predict.learning.rows import relatives_of

    assert relatives_of(measurement("BertForMaskedLM")) == "Bert"
    assert relatives_of(measurement("GPT2LMHeadModel")) == "GPT2"
    assert relatives_of(measurement("LlamaModel", details={"relatives": "llama"})) == "llama"
