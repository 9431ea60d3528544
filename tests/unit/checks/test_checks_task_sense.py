"""What trained models must make of speech, digits, reactions and lists: a wrong answer breaks the claim."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.checkpoints.pretrained.digits import NAMES, held_out_digits, training_digits
from pytest_hfaccel.checks.base import Claim
from pytest_hfaccel.checks.task_sense import fills_masks, groups_paraphrases, reads_digits, transcribes_speech
from pytest_hfaccel.core.errors import PackageMissing
from pytest_hfaccel.core.results import Status
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


class Pipe:
    """A pipeline that answers as it is told."""

    def __init__(self, answer: Callable[..., Any], **parts: Any) -> None:
        self._answer = answer
        self.__dict__ |= parts

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._answer(*arguments, **options)


def claims_of(sense: Callable[[Any], Any], answer: Callable[..., Any], **parts: Any) -> list[Claim]:
    return list(sense(SimpleNamespace(pipe=Pipe(answer, **parts))))


@pytest.mark.parametrize(
    ("transcript", "holds"),
    [
        (" It was the best of times. It was the worst of times.", True),
        ("the best times, and the worst", True),
        ("It was the worst of times. It was the best of times.", False),
        ("", False),
    ],
)
def test_speech_is_heard_word_by_word_in_order(transcript: str, holds: bool) -> None:
    heard: list[Any] = []

    def answer(sound: Any) -> dict[str, str]:
        heard.append(sound["raw"])
        return {"text": transcript}

    (claim,) = claims_of(transcribes_speech, answer, feature_extractor=SimpleNamespace(sampling_rate=16000))
    assert claim.holds == holds
    assert claim.measures["transcript"] == transcript
    assert len(heard[0]) == 4 * 16000
    assert 0.1 < abs(heard[0]).max() <= 1


def test_speech_that_is_not_installed_is_told_with_what_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(PackageMissing, match="pip install --no-deps moonshine-voice"):
        claims_of(transcribes_speech, dict, feature_extractor=SimpleNamespace(sampling_rate=16000))


def reading(right: int) -> Callable[..., Any]:
    """Read the first `right` pictures as what they are, and all others as the digit after it."""
    pictures, answers = held_out_digits()
    known = {picture.tobytes(): answer for picture, answer in zip(pictures, answers, strict=True)}
    seen: list[int] = []

    def answer(picture: Any, top_k: int) -> list[dict[str, Any]]:
        assert top_k == 1
        seen.append(known[picture.tobytes()])
        shown = seen[-1] if len(seen) <= right else (seen[-1] + 1) % 10
        return [{"label": str(shown), "score": 1.0}]

    return answer


def labelled(*names: str) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(names))))


@pytest.mark.parametrize(("right", "holds"), [(120, True), (114, True), (113, False), (0, False)])
def test_nineteen_of_twenty_digits_must_be_read(right: int, holds: bool) -> None:
    (claim,) = claims_of(reads_digits, reading(right), model=labelled(*NAMES))
    assert claim.holds == holds
    assert claim.measures == {"accuracy": right / 120, "pictures": 120}


def test_nothing_is_claimed_of_models_with_other_labels() -> None:
    assert claims_of(reads_digits, reading(0), model=labelled("cat", "dog")) == []


def test_no_picture_is_both_learned_and_asked() -> None:
    learned, asked = training_digits()[0], held_out_digits()[0]
    assert (len(learned), len(asked)) == (1437, 360)
    # A few scans are equal; what counts is that none of the numbers is in both.
    assert len({picture.tobytes() for picture in learned} & {picture.tobytes() for picture in asked}) <= 2


def test_a_gap_in_a_reaction_has_one_answer() -> None:
    tokenizer = SimpleNamespace(get_vocab=lambda: {">>": 1, "O": 2}, mask_token="[MASK]")  # noqa: S106

    def oxygen(text: str, top_k: int) -> list[dict[str, Any]]:
        assert "[MASK]" in text
        return [{"token_str": "O", "score": 1.0}] * top_k

    claims = claims_of(fills_masks, oxygen, tokenizer=tokenizer)
    assert [claim.holds for claim in claims] == [True, False, False]


def test_an_untrained_model_makes_no_sense(bert: TinySource) -> None:
    outcome = run("task_sense", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert "fills 'Paris is the capital of [MASK].' with 'france'" in (outcome.reason or "")


def test_the_claims_of_a_model_class_module_count(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    context.cell = SimpleNamespace(model=SimpleNamespace(task="mask-generation"))  # type: ignore[assignment]
    assert run("task_sense", context).status == Status.SKIPPED
    context.claims = [Claim("sees the cat", True, {"score": 0.9})]
    outcome = run("task_sense", context)
    assert outcome.status == Status.PASSED
    assert outcome.measures["claims"] == {"sees the cat": {"holds": True, "score": 0.9}}
    context.claims = [*context.claims, Claim("sees the dog", False)]
    assert "it does not hold that the model sees the dog" in (run("task_sense", context).reason or "")


def _by_topic(text: str) -> list[list[list[float]]]:
    return [[[1.0, 0.0]]] if "guitar" in text or "cat" in text else [[[0.0, 1.0]]]


def _by_wording(text: str) -> list[list[list[float]]]:
    return [[[0.0, 1.0]]] if text.startswith(("A man plays", "A cat")) else [[[1.0, 0.0]]]


@pytest.mark.parametrize(("features", "holds"), [(_by_topic, True), (_by_wording, False)])
def test_paraphrases_must_be_closer_than_other_sentences(features: Any, holds: bool) -> None:
    pipe: Any = partial(features)
    pipe.tokenizer = SimpleNamespace(get_vocab=lambda: {"man": 0})
    claims = list(groups_paraphrases(SimpleNamespace(pipe=pipe)))
    assert [claim.holds for claim in claims] == [holds, holds]
