"""The last layer: no number, only whether this kind of model is known to run on this kind of device."""

from __future__ import annotations

from pytest_hfaccel.advisor.compatibility import CompatibilityMatrix
from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.predict.prediction import Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace


class DeclaredLayer:
    """Answers with the advisor's compatibility matrix: what is declared of a family, overwritten by measured cells."""

    name = Source.DECLARED

    def __init__(self, matrix: CompatibilityMatrix) -> None:
        self._matrix = matrix

    def support(self, question: Question) -> Support:
        """Return what is known of the model on this kind of device."""
        return self._matrix.entry(question.model, question.architecture or None, question.family, question.device_kind)

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction:
        """Return the entry of the matrix; it has no number."""
        del trace
        support = self.support(question)
        basis = f"{support.basis} {support.support}: {support.reason}"
        return Prediction(question, self.name, basis, None, None, details={"support": support.to_json()})
