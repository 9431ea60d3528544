"""Check `task_sense`: a pretrained model does what it was trained for.

One function per task makes claims about any pretrained model of the task, on plain English, plain colours, digits,
recorded speech or chemical reactions; none where the model's vocabulary or labels show that it was trained for
something else. A task without an entry has no input that is both self-made and telling.
"""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.pretrained.digits import LEAST_ACCURACY, NAMES, held_out_digits
from pytest_hfaccel.checks.base import CheckContext, Claim, built_in, failed, passed, skipped
from pytest_hfaccel.core.errors import CheckpointError, PackageMissing
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.spec import Weights

if TYPE_CHECKING:
    import numpy as np
    import torch


@built_in("task_sense", applies=lambda cell: cell.weights.kind == Weights.PRETRAINED)
def task_sense(context: CheckContext) -> CheckOutcome:
    """A pretrained model makes sense of its task: every claim of the task and of the model class module holds."""
    task = context.cell.model.task
    of_task = CLAIMS_OF_TASK.get(task)
    claims = [*(of_task(context) if of_task else ()), *context.claims]
    if not claims:
        return skipped(f"no claims about models for {task}; override `task_sense` in the model class module")
    measures = {claim.text: {"holds": claim.holds, **claim.measures} for claim in claims}
    broken = [claim for claim in claims if not claim.holds]
    if broken:
        lines = [f"it does not hold that the model {claim.text}: {dict(claim.measures)}" for claim in broken]
        return failed("\n".join(lines), claims=measures)
    return passed(claims=measures)


_ARROW = ">>"
"""A token of vocabularies of reaction SMILES, and of no other."""

# Facts that every English corpus states often. The answer must be among the first five of tens of thousands of words.
_FACTS = (("Paris is the capital of {}.", "france"), ("The opposite of hot is {}.", "cold"))
_TOP = 5

# (a reaction in SMILES with a gap, the token that the laws of nature demand there): it must come first.
_REACTIONS_WITH_GAP = (
    ("CC(=O)O.OCC>>CC(=O){}CC", "O"),  # an ester keeps the oxygen of its alcohol
    ("CC(=O)Cl.{}Cc1ccccc1>>CC(=O)NCc1ccccc1", "N"),  # an amide's nitrogen comes from the amine
    ("Br{}1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1", "c"),  # the rings of a biaryl come from both sides
)


def fills_masks(context: CheckContext) -> Iterator[Claim]:
    """The model fills plain gaps with the expected word. Claimed only of vocabularies that have the word whole.

    A vocabulary of reaction SMILES gets reactions, and the expected token must come first.
    """
    tokenizer = context.pipe.tokenizer
    vocabulary = tokenizer.get_vocab()
    if _ARROW in vocabulary:
        for reaction, answer in _REACTIONS_WITH_GAP:
            text = reaction.format(tokenizer.mask_token)
            best = context.pipe(text, top_k=1)[0]
            measures = {"token": best["token_str"], "score": best["score"]}
            yield Claim(f"completes {text!r} with {answer!r}", best["token_str"].strip() == answer, measures)
        return
    words = {str(token).lstrip("Ġ▁").lower() for token in vocabulary}
    for sentence, answer in _FACTS:
        if answer not in words:
            continue
        text = sentence.format(tokenizer.mask_token)
        fills = context.pipe(text, top_k=_TOP)
        tokens = [str(fill["token_str"]).strip().lower() for fill in fills]
        measures = {"fills": tokens, "scores": [fill["score"] for fill in fills]}
        yield Claim(f"fills {text!r} with {answer!r} among its first {_TOP}", answer in tokens, measures)


# (sentence, a paraphrase, something else): far enough apart for models that were not trained on similarity.
_PARAPHRASES = (
    ("A man is playing a guitar on stage.", "A man plays the guitar on a stage.", "The stock market fell sharply."),
    ("The cat sleeps on the sofa.", "A cat is sleeping on the sofa.", "Quantum physics is difficult to learn."),
)

# (reaction, one of the same kind, one of another kind)
_REACTION_KINDS = (
    ("CC(=O)O.OCC>>CC(=O)OCC", "CC(=O)O.CO>>CC(=O)OC", "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1"),
    (
        "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
        "Brc1ccc(C)cc1.OB(O)c1ccccc1>>Cc1ccc(-c2ccccc2)cc1",
        "CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1",
    ),
    ("CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1", "CC(=O)Cl.NCC>>CC(=O)NCC", "CC(=O)O.CO>>CC(=O)OC"),
)


def groups_paraphrases(context: CheckContext) -> Iterator[Claim]:
    """Mean-pooled features of paraphrases are closer than those of unrelated sentences; likewise those of reactions."""
    import torch
    from torch.nn.functional import cosine_similarity

    is_chemical = _ARROW in context.pipe.tokenizer.get_vocab()
    for sentence, paraphrase, other in _REACTION_KINDS if is_chemical else _PARAPHRASES:
        # One text at a time: every token is real, so that the plain mean is the masked mean.
        pooled = [
            torch.tensor(context.pipe(text), dtype=torch.float64)[0].mean(0) for text in (sentence, paraphrase, other)
        ]
        similar, unrelated = (float(cosine_similarity(pooled[0], one, dim=0)) for one in pooled[1:])
        yield Claim(
            f"puts {sentence!r} closer to {paraphrase!r} than to {other!r}",
            similar > unrelated,
            {"paraphrase_cosine": similar, "unrelated_cosine": unrelated},
        )


# (a sentence, the same words in another order)
_SENTENCES = (
    ("The children went to school by bus in the morning.", "Morning bus the school in by went the children to."),
    ("She opened the door and walked into the house.", "House door the into walked and opened the she."),
)

# (a text, its next word): counted on by every model of English, and first of tens of thousands of tokens.
_CONTINUATIONS = (
    ("Monday, Tuesday, Wednesday, Thursday,", " Friday"),
    ("One, two, three, four,", " five"),
)


def prefers_sentences(context: CheckContext) -> Iterator[Claim]:
    """A sentence has a lower perplexity than its words in another order, and a list its next word."""
    for sentence, shuffled in _SENTENCES:
        natural, scrambled = _perplexity(context, sentence), _perplexity(context, shuffled)
        yield Claim(
            f"finds {sentence!r} more probable than {shuffled!r}",
            natural < scrambled,
            {"perplexity": natural, "perplexity_shuffled": scrambled},
        )
    tokenizer = context.pipe.tokenizer
    for text, word in _CONTINUATIONS:
        ids = list(tokenizer(word, add_special_tokens=False)["input_ids"])
        if len(ids) != 1:
            continue
        best = int(_logits(context, text)[0][-1].argmax())
        yield Claim(f"continues {text!r} with {word!r}", best == ids[0], {"token": tokenizer.decode([best])})


def _perplexity(context: CheckContext, text: str) -> float:
    """Return exp of the mean negative log-likelihood per predicted token."""
    from torch.nn.functional import cross_entropy

    logits, ids = _logits(context, text)
    return float(cross_entropy(logits[:-1], ids[1:]).exp())


def _logits(context: CheckContext, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of a text (tokens x vocabulary), in fp32, and the text's ids."""
    inputs = context.pipe.tokenizer(text, return_tensors="pt")
    arguments = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    return context.loaded.forward(arguments)["logits"][0].float(), inputs["input_ids"][0]


_REVIEWS = (("I love this film, it is wonderful.", "positive"), ("I hate this film, it is terrible.", "negative"))


def judges_sentiment(context: CheckContext) -> Iterator[Claim]:
    """Praise is positive and a rant is negative. Claimed only of models that have such labels."""
    names = {str(name).lower() for name in context.pipe.model.config.id2label.values()}
    if not {"positive", "negative"} <= names:
        return
    for review, sentiment in _REVIEWS:
        best = context.pipe(review)[0]
        yield Claim(
            f"finds {review!r} {sentiment}",
            str(best["label"]).lower() == sentiment,
            {"label": best["label"], "score": best["score"]},
        )


_TEXT_WITH_PLACE, _PLACE = "My name is Anna and I live in Berlin.", "Berlin"
_PLACE_LABELS = {"LOC", "GPE"}


def finds_places(context: CheckContext) -> Iterator[Claim]:
    """A city is a place. Claimed only of models that have a label for places (`LOC` or `GPE`)."""
    if not _PLACE_LABELS & {_without_prefix(label) for label in context.pipe.model.config.id2label.values()}:
        return
    start = _TEXT_WITH_PLACE.index(_PLACE)
    entities = context.pipe(_TEXT_WITH_PLACE)
    labels = [_without_prefix(entity["entity"]) for entity in entities if entity["start"] == start]
    yield Claim(f"finds a place in {_TEXT_WITH_PLACE!r}", bool(_PLACE_LABELS & set(labels)), {"labels": labels})


def _without_prefix(label: object) -> str:
    return str(label).rpartition("-")[2].upper()


_SPEECH_PACKAGE = "moonshine_voice"
_INSTALL_SPEECH = "pip install --no-deps moonshine-voice==0.1.5"
_RECORDING = "assets/two_cities.wav"
_RECORDING_SHA256 = "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e"
_SECONDS = 4
"""How much of A Tale of Two Cities, read aloud, is transcribed; an exported model encodes it anew for each token."""

# What is said in these seconds; the smallest of models get a word wrong now and then.
_SPOKEN = "it was the best of times it was the worst of times"
_TELLING_WORDS = ("best", "times", "worst")


def transcribes_speech(context: CheckContext) -> Iterator[Claim]:
    """The transcript of English that was spoken by a person has the telling words, in their order.

    Raises:
        PackageMissing: The package that carries the recording is not installed.
        CheckpointError: The recording is another one.
    """
    rate = context.pipe.feature_extractor.sampling_rate
    transcript = str(context.pipe({"raw": _speech(rate), "sampling_rate": rate})["text"])
    words = "".join(letter if letter.isalpha() else " " for letter in transcript.lower()).split()
    places = [words.index(word) if word in words else -1 for word in _TELLING_WORDS]
    yield Claim(
        f"hears {', '.join(_TELLING_WORDS)} in {_SPOKEN!r}",
        -1 not in places and places == sorted(places),
        {"transcript": transcript},
    )


def _speech(rate: int) -> np.ndarray[Any, Any]:
    """Return the recording in fp32 between -1 and 1, at a rate that divides its own."""
    import numpy as np

    package = find_spec(_SPEECH_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise PackageMissing("recorded speech comes with a package that is not installed.", hint=_INSTALL_SPEECH)
    path = Path(package.submodule_search_locations[0]) / _RECORDING
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _RECORDING_SHA256:
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest}, expected is {_RECORDING_SHA256}.", hint=_INSTALL_SPEECH
        )
    with wave.open(str(path)) as file:
        recorded = file.getframerate()
        samples = np.frombuffer(file.readframes(_SECONDS * recorded), np.int16).astype(np.float32) / 2**15
    # The mean of neighbouring samples is a filter and a change of rate in one, where the rates divide.
    step = recorded // rate
    mean: np.ndarray[Any, Any] = samples[: len(samples) // step * step].reshape(-1, step).mean(1)
    return mean


_PICTURES = 120
"""Every third of the digits held out from training: enough to tell 95 % from 90 %, in a second."""


def reads_digits(context: CheckContext) -> Iterator[Claim]:
    """Digits that no model was trained on are read rightly. Claimed only of models whose labels are the ten digits."""
    if sorted(map(str, context.pipe.model.config.id2label.values())) != list(NAMES):
        return
    pictures, answers = held_out_digits()
    step = len(answers) // _PICTURES
    labels = [context.pipe(picture, top_k=1)[0]["label"] for picture in pictures[::step]]
    right = sum(label == str(answer) for label, answer in zip(labels, answers[::step], strict=True))
    accuracy = right / len(labels)
    yield Claim(
        f"reads {LEAST_ACCURACY:.0%} of the digits that it was not trained on",
        accuracy >= LEAST_ACCURACY,
        {"accuracy": accuracy, "pictures": len(labels)},
    )


_COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def names_colours(context: CheckContext) -> Iterator[Claim]:
    """A plain image in one colour fits the name of that colour best."""
    from PIL import Image

    for name, colour in _COLOURS.items():
        image = Image.new("RGB", (224, 224), colour)
        best = context.pipe(image, candidate_labels=list(_COLOURS), hypothesis_template="the colour {}")[0]
        yield Claim(f"calls a {name} image {name}", best["label"] == name, dict(best))


CLAIMS_OF_TASK: dict[str, Callable[[CheckContext], Iterable[Claim]]] = {
    "automatic-speech-recognition": transcribes_speech,
    "feature-extraction": groups_paraphrases,
    "fill-mask": fills_masks,
    "image-classification": reads_digits,
    "text-classification": judges_sentiment,
    "text-generation": prefers_sentences,
    "token-classification": finds_places,
    "zero-shot-image-classification": names_colours,
}
