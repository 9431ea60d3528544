"""Which registered models serve a task on given hardware, and which do not, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.tasks import TASKS

if TYPE_CHECKING:
    from pytest_hfaccel.advisor.classifier import HardwareAwareModelClassifier
    from pytest_hfaccel.core.spec import ModelSpec

_OTHER_NAMES = {
    "asr": "automatic-speech-recognition",
    "image-to-text": "image-text-to-text",
    "masked-lm": "fill-mask",
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
    "speech-recognition": "automatic-speech-recognition",
    "summarization": "text2text-generation",
    "translation": "text2text-generation",
    "visual-question-answering": "image-text-to-text",
}
"""Tasks that models registered under another one serve as well, and names the hub has dropped."""


def recommend(
    classifier: HardwareAwareModelClassifier, task: str, asked: Sequence[str], *, limit: int | None = None
) -> dict[str, Any]:
    """Recommend registered models for a task.

    Args:
        classifier: Gives registry and machine.
        task: A task of `pytest_hfaccel.core.tasks.TASKS`, in any spelling.
        asked: The kinds of device to choose among, present or not; when empty, those present.
        limit: How many to recommend at most.

    Returns:
        `task, hardware_constraints, recommendations, excluded, explanation, source`. The recommendations are
        classifications (see `HardwareAwareModelClassifier.classify_model`) of models that fit, those that were measured
        first, then in the order of the registry; `excluded` says of each other model why.

    Raises:
        ConfigError: There is no such task.
    """
    if not isinstance(task, str):
        raise ConfigError(f"task: {task!r} is not a task.", hint=f"Allowed: {', '.join(TASKS)}.")
    name = normalised_task(task)
    found = [(spec, _classify(classifier, spec, asked)) for spec in classifier.registry.specs if spec.task == name]
    passed = [(spec, answer) for spec, answer in found if answer["recommended_hardware"]]
    passed.sort(key=lambda pair: _profile(pair[1])["basis"] != "measured")
    left_out = {spec.name: answer["explanation"] for spec, answer in found if not answer["recommended_hardware"]}
    chosen = [answer for _, answer in passed[:limit]]
    where = ", ".join(asked) if asked else "the devices of this machine"
    return {
        "task": name,
        "hardware_constraints": list(asked),
        "recommendations": chosen,
        "excluded": left_out,
        "explanation": f"{len(chosen)} of {len(found)} registered models for {name} are recommended for {where}.",
        "source": "the registry, filtered by support and by what fits",
    }


def normalised_task(task: str) -> str:
    """Return the registry's name of a task.

    Raises:
        ConfigError: There is no such task; the message lists all.
    """
    from difflib import get_close_matches

    spelled = "-".join(task.strip().lower().replace("_", " ").replace("-", " ").split())
    name = spelled if spelled in TASKS else _OTHER_NAMES.get(spelled, spelled)
    if name in TASKS:
        return name
    near = get_close_matches(name, TASKS, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{task!r} is not a task of the registry.{suggestion}", hint=f"Allowed: {', '.join(TASKS)}.")


def _classify(classifier: HardwareAwareModelClassifier, spec: ModelSpec, asked: Sequence[str]) -> dict[str, Any]:
    answer = classifier.classify_model(spec.name, spec.architecture, [spec.task], hardware=asked)
    return {**answer, "gated": spec.gated, "architecture": spec.architecture}


def _profile(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(answer["hardware_profile"][answer["recommended_hardware"]])
