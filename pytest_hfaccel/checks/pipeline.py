"""Checks `pipeline` and `transformers_js`: a pipeline gives what the processor and the model give when used directly.

`pipeline` calls `transformers.pipeline` on every device; `transformers_js`, only with `--hf-transformers-js`, calls the
pipeline of transformers.js in a browser. That has a tokenizer and image processors of its own, and reads the same
checkpoint and the ONNX graph of the cell.

One small function per task computes what its pipeline must give, from the context, the positional arguments of the call
and its keyword arguments. Post-processing is written out from the pipeline's documentation, not taken from its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless, skipped
from pytest_hfaccel.core.errors import shorten
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import generates, task_of
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.tolerances import Tolerance, tolerance_of

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.core.spec import Cell

Options = Mapping[str, Any]
Arguments = tuple[Any, ...]
Records = list[dict[str, Any]]
Compute = Callable[[CheckContext, Arguments, Options], Any]


@built_in("pipeline", applies=lambda cell: task_of(cell.model).pipeline is not None)
def pipeline(context: CheckContext) -> CheckOutcome:
    """The task's pipeline on this device equals pre-processing, forward or generate, and post-processing by hand."""
    arguments = context.sample.pipeline
    if arguments is None:
        return skipped("the sample has no input for the pipeline")
    task = task_of(context.cell.model).pipeline or ""
    direct = EXPECTED[task]
    options = {**context.sample.pipeline_kwargs, **direct.options}
    # Some pipelines take their arguments apart: give them copies.
    actual = direct.compared(context.pipe(*deepcopy(arguments), **deepcopy(options)))
    expected = direct.compute(context, arguments, options)
    problems = problems_between(actual, expected, tolerance_of(context.cell))
    return passed_unless("\n".join(problems), task=task, result=shorten(repr(actual), 200))


GREEDY: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": 1}
"""Options of every call that generates: some pipelines sample or search with beams by default, and a tiny model may end
at once, which would leave no text to compare. Four tokens tell whether the pipeline hands the model what it should and
reads its answer; whether they are the right ones is for the check `generation`."""

# Documented defaults of the pipelines.
_TOP_TOKENS = 5
_TOP_LABELS = 5
_DETECTION_THRESHOLD = 0.5
_IMAGE_TEMPLATE = "This is a photo of {}."
_SOUND_TEMPLATE = "This is a sound of {}."
_PADDED_TO_64 = {"padding": "max_length", "max_length": 64, "truncation": True}


def _text(context: CheckContext, text: str) -> Any:
    return context.pipe.tokenizer(text, return_tensors="pt")


def _image(context: CheckContext, image: Any) -> Any:
    return context.pipe.image_processor(image, return_tensors="pt")


def _sound(context: CheckContext, audio: Any, **options: Any) -> Any:
    extractor = context.pipe.feature_extractor
    samples = audio["raw"] if isinstance(audio, dict) else audio
    return extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)


def _features(prepare: Callable[[CheckContext, Any], Any]) -> Compute:
    """The first output: nested lists of shape (1, tokens or patches, features)."""

    def compute(context: CheckContext, arguments: Arguments, _options: Options) -> Any:
        return next(iter(_forward(context, prepare(context, arguments[0])).values())).tolist()

    return compute


def _classification(prepare: Callable[[CheckContext, Any], Any], top_k: int | None) -> Compute:
    """The best labels, the best first; `top_k` of them, all where it is `None`, unless the call says otherwise."""

    def compute(context: CheckContext, arguments: Arguments, options: Options) -> Records:
        config = context.pipe.model.config
        logits = _forward(context, prepare(context, arguments[0]))["logits"][0].float()
        if config.problem_type == "regression":
            scores = logits
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(-1)
        best = scores.sort(descending=True, stable=True)
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [{"label": config.id2label[index], "score": score} for score, index in pairs][
            : options.get("top_k", top_k)
        ]

    return compute


def _fill_mask(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The most probable tokens for the one mask of a text."""
    tokenizer = context.pipe.tokenizer
    inputs = _text(context, arguments[0])
    ids = inputs["input_ids"][0]
    place = int((ids == tokenizer.mask_token_id).nonzero()[0])
    best = _forward(context, inputs)["logits"][0, place].softmax(-1).topk(options.get("top_k", _TOP_TOKENS))
    records = []
    for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        sequence = ids.clone()
        sequence[place] = token
        text = tokenizer.decode(sequence[sequence != tokenizer.pad_token_id], skip_special_tokens=True)
        records.append({"score": score, "token": token, "token_str": tokenizer.decode([token]), "sequence": text})
    return records


def _token_classification(context: CheckContext, arguments: Arguments, _options: Options) -> Records:
    """One entity per token that is neither special nor labelled `O`."""
    tokenizer = context.pipe.tokenizer
    labels = context.pipe.model.config.id2label
    text = arguments[0]
    inputs = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True, return_offsets_mapping=True)
    special, offsets = inputs.pop("special_tokens_mask")[0], inputs.pop("offset_mapping")[0].tolist()
    best = _forward(context, inputs)["logits"][0].float().softmax(-1).max(-1)
    entities = []
    for index, token in enumerate(inputs["input_ids"][0].tolist()):
        label = labels[int(best.indices[index])]
        if special[index] or label == "O":
            continue
        start, end = offsets[index]
        is_unknown = token == tokenizer.unk_token_id
        word = text[start:end] if is_unknown else tokenizer.convert_ids_to_tokens(token)
        place = {"index": index, "word": word, "start": start, "end": end}
        entities.append({"entity": label, "score": float(best.values[index]), **place})
    return entities


def _text_generation(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The prompt with its continuation."""
    # The pipeline puts a text before XLNet's prompts: it makes little of a short one.
    prefix = str(context.pipe.XL_PREFIX) if context.cell.model.architecture == "XLNetLMHeadModel" else ""
    inputs = _text(context, prefix + arguments[0])
    arguments_of_generate = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    tokens = _generate(context, arguments_of_generate, {name: options[name] for name in GREEDY})
    new = tokens[0, inputs["input_ids"].shape[1] :]
    return [{"generated_text": arguments[0] + context.pipe.tokenizer.decode(new, skip_special_tokens=True)}]


def _image_text_to_text(context: CheckContext, arguments: Arguments, options: Options) -> str:
    """The answer to a chat with an image."""
    messages = options["text"] if "text" in options else arguments[0]
    processor = context.pipe.processor
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = _generate(context, inputs, options["generate_kwargs"])
    answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(answer).strip()


def _zero_shot_image_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The candidate labels by how well their sentence fits the image."""
    # SigLIP was trained with texts of one length, and on each pair by itself: its scores do not add up to one.
    sigmoid = "siglip" in context.pipe.model.config.model_type
    texts = _candidate_texts(context, options, _IMAGE_TEMPLATE, _PADDED_TO_64 if sigmoid else {"padding": True})
    logits = _forward(context, {**texts, **_image(context, [arguments[0]])})["logits_per_image"][0]
    return _candidates(options, logits.sigmoid() if sigmoid else logits.softmax(-1))


def _zero_shot_audio_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The candidate labels by how well their sentence fits the recording."""
    texts = _candidate_texts(context, options, _SOUND_TEMPLATE, {"padding": True})
    logits = _forward(context, {**texts, **_sound(context, [arguments[0]])})["logits_per_audio"][0]
    return _candidates(options, logits.softmax(-1))


def _candidate_texts(context: CheckContext, options: Options, template: str, padding: Options) -> Mapping[str, Any]:
    """Tokenize a sentence for each of the candidate labels."""
    template = options.get("hypothesis_template", template)
    sentences = [template.format(label) for label in options["candidate_labels"]]
    tokens: Mapping[str, Any] = context.pipe.tokenizer(sentences, return_tensors="pt", **padding)
    return tokens


def _candidates(options: Options, scores: torch.Tensor) -> Records:
    """Return candidate labels with their scores, the best first."""
    best_first = sorted(zip(scores.tolist(), options["candidate_labels"], strict=True), reverse=True)
    return [{"score": score, "label": label} for score, label in best_first]


def _object_detection(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The objects above the threshold, with boxes in pixels of the image."""
    import torch

    image = arguments[0]
    outputs = SimpleNamespace(**_forward(context, _image(context, [image])))
    size = torch.tensor([[image.height, image.width]])
    threshold = options.get("threshold", _DETECTION_THRESHOLD)
    objects = context.pipe.image_processor.post_process_object_detection(outputs, threshold, size)[0]
    labels = context.pipe.model.config.id2label
    return [
        {
            "score": score,
            "label": labels[label],
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True)),
        }
        for score, label, box in zip(*(objects[key].tolist() for key in ("scores", "labels", "boxes")), strict=True)
    ]


def _speech_recognition(context: CheckContext, arguments: Arguments, options: Options) -> str:
    """The text: the most probable letters (CTC), or what the decoder generates."""
    inputs = _sound(context, arguments[0], return_attention_mask=True)
    tokenizer = context.pipe.tokenizer
    if generates(context.cell.model):
        tokens = _generate(context, inputs, options.get("generate_kwargs", {}))
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()
    tokens = _forward(context, inputs)["logits"][0].argmax(-1)
    return str(tokenizer.decode(tokens)).strip()


def _forward(context: CheckContext, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Run the cell's model on what a processor returned; entries that are no tensors are left out."""
    import torch

    return context.loaded.forward({name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})


def _generate(context: CheckContext, inputs: Mapping[str, Any], options: Options) -> torch.Tensor:
    """Generate with the object the pipeline generates with, on the device, without the pipeline."""
    import torch

    model = context.pipe.model
    with torch.inference_mode():
        moved = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        tokens: torch.Tensor = model.generate(**moved, **options)
    return tokens.cpu()


@dataclass(frozen=True)
class Expected:
    """How to get a pipeline's result without the pipeline.

    Attributes:
        compute: Takes context, positional and keyword arguments of the call; returns the expected result.
        options: Keyword arguments that every call gets, so that its result is defined (greedy generation).
        compared: Takes the part of the pipeline's result that is compared.
    """

    compute: Compute
    options: Options = field(default_factory=dict)
    compared: Callable[[Any], Any] = lambda result: result


_GREEDY_NESTED: Options = {"generate_kwargs": GREEDY}

EXPECTED: dict[str, Expected] = {
    "fill-mask": Expected(_fill_mask),
    "feature-extraction": Expected(_features(_text)),
    "text-classification": Expected(_classification(_text, 1)),
    "token-classification": Expected(_token_classification),
    "text-generation": Expected(_text_generation, GREEDY),
    "image-text-to-text": Expected(
        _image_text_to_text, _GREEDY_NESTED, lambda result: str(result[0]["generated_text"][-1]["content"]).strip()
    ),
    "image-classification": Expected(_classification(_image, _TOP_LABELS)),
    "image-feature-extraction": Expected(_features(_image)),
    "zero-shot-image-classification": Expected(_zero_shot_image_classification),
    "object-detection": Expected(_object_detection),
    "automatic-speech-recognition": Expected(
        _speech_recognition, _GREEDY_NESTED, lambda result: str(result["text"]).strip()
    ),
    "audio-classification": Expected(_classification(_sound, None)),
    "zero-shot-audio-classification": Expected(_zero_shot_audio_classification),
}
"""By pipeline task; every task of `pytest_hfaccel.core.tasks` that has a pipeline is here."""


_PIXELS = 1
"""Boxes are cut down to whole pixels, so that rounding can move a corner by one."""


def problems_between(actual: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    """Return how a pipeline's result differs from the expected one, one line each; empty when it does not.

    Args:
        actual: The pipeline's result: text, nested lists of numbers, or records (dicts), with or without `score`.
        expected: The same, computed directly.
        tolerance: Limits for numbers and scores.
    """
    broken = [side for side, result in (("its", actual), ("the direct", expected)) if not _is_finite(result)]
    if broken:
        return [f"{side} result contains NaN or infinity: {actual!r} instead of {expected!r}" for side in broken]
    if _is_record_list(expected):
        return _records(actual, expected, tolerance)
    if isinstance(expected, list):
        return _arrays(actual, expected, tolerance)
    return [] if actual == expected else [f"{actual!r} instead of {expected!r}"]


def _is_finite(result: Any) -> bool:
    if isinstance(result, Mapping):
        return all(map(_is_finite, result.values()))
    if isinstance(result, Sequence) and not isinstance(result, str):
        return all(map(_is_finite, result))
    return not isinstance(result, float) or math.isfinite(result)


def _is_record_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _arrays(actual: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    import torch

    leaf, reference = (torch.tensor(result, dtype=torch.float64) for result in (actual, expected))
    comparison = compare({"result": leaf}, {"result": reference}, tolerance)
    return [] if comparison.ok else [comparison.text()]


def _records(actual: Any, expected: list[Mapping[str, Any]], tolerance: Tolerance) -> list[str]:
    if not _is_record_list(actual) or len(actual) != len(expected):
        return [f"{actual!r} instead of {expected!r}"]
    allowed = (tolerance.atol or tolerance.rel_l2) + (tolerance.rtol or 0.0)  # scores are at most 1
    if all(("label" in record or "token" in record) and "box" not in record for record in expected):
        return _ranking(actual, expected, allowed)
    return [
        f"record {index}: {one!r} instead of {other!r}"
        for index, (one, other) in enumerate(zip(actual, expected, strict=True))
        if not _same_record(one, other, allowed)
    ]


def _ranking(actual: list[Mapping[str, Any]], expected: list[Mapping[str, Any]], allowed: float) -> list[str]:
    """Compare by label, not by rank: rounding may swap neighbours, and the last may be replaced by its equal."""
    by_identity = {_identity(record): record for record in expected}
    cut = min((float(record["score"]) for record in expected), default=0.0)
    problems = []
    for record in actual:
        other = by_identity.get(_identity(record))
        score = float(other["score"]) if other else cut
        if abs(float(record["score"]) - score) > allowed or (other and not _same_record(record, other, allowed)):
            problems.append(f"{record!r} instead of {other or f'a score of at most {cut:.4g}'!r}")
    scores = [float(record["score"]) for record in actual]
    if scores != sorted(scores, reverse=True):
        problems.append(f"the scores are not in descending order: {scores}")
    return problems


def _identity(record: Mapping[str, Any]) -> Any:
    return record["label"] if "label" in record else record["token"]


def _same_record(actual: Mapping[str, Any], expected: Mapping[str, Any], allowed: float) -> bool:
    return actual.keys() == expected.keys() and all(_same(key, actual[key], expected[key], allowed) for key in expected)


def _same(key: str, actual: Any, expected: Any, allowed: float) -> bool:
    if key == "score":
        return abs(float(actual) - float(expected)) <= allowed
    if key == "box":
        return actual.keys() == expected.keys() and all(abs(actual[k] - expected[k]) <= _PIXELS for k in expected)
    return bool(actual == expected)


_TASKS_OF_TRANSFORMERS_JS = {
    "feature-extraction": {},
    "fill-mask": {},
    "image-classification": {},
    "image-feature-extraction": {"pool": False},
    "text-classification": {},
    "token-classification": {},
}
"""Pipelines that transformers.js runs on the one graph of a forward pass, with options that give what Python gives.

Generation wants graphs for encoder, decoder and cache that are named as Optimum names them; ours are not."""

_DEVICES_OF_TRANSFORMERS_JS = ("wasm", "webgpu")
"""For webnn transformers.js would need the lengths of the axes, which it does not know before it tokenizes."""


def _runs_transformers_js(cell: Cell) -> bool:
    return cell.device.kind in _DEVICES_OF_TRANSFORMERS_JS and task_of(cell.model).pipeline in _TASKS_OF_TRANSFORMERS_JS


@built_in("transformers_js", applies=_runs_transformers_js, option="transformers_js")
def transformers_js(context: CheckContext) -> CheckOutcome:
    """The pipeline of transformers.js in the page gives what `transformers.pipeline` gives on the CPU."""
    from transformers import pipeline as make_pipeline

    sample = context.sample
    if sample.pipeline is None:
        return skipped("the sample has no input for the pipeline")
    task = task_of(context.cell.model).pipeline or ""
    arguments = [_at_size_of_model(context, argument) for argument in sample.pipeline]
    run: Any = getattr(context.loaded, "transformers_js")  # noqa: B009 - not every loaded model has it
    actual = run(task, arguments, _TASKS_OF_TRANSFORMERS_JS[task])
    with context.on_cpu("fp32") as on_cpu:
        python = make_pipeline(task, model=on_cpu.pipeline_model(), **context.source.processors())
        expected = python(*arguments, **sample.pipeline_kwargs)
    problems = problems_between(*_shared(actual, expected), tolerance_of(context.cell))
    return passed_unless("\n".join(problems), task=task, result=repr(actual)[:200])


def _at_size_of_model(context: CheckContext, argument: Any) -> Any:
    """Return an image at the size that the model takes: a browser resamples otherwise than PIL does."""
    size = getattr(context.source.processors().get("image_processor"), "size", None)
    if not hasattr(argument, "resize") or not size or "height" not in size:
        return argument
    return argument.resize((size["width"], size["height"]))


def _shared(actual: Any, expected: Any) -> tuple[Any, Any]:
    """Return two results without the fields that only one of them has (places in the text, in transformers.js)."""
    if not isinstance(actual, list) or not isinstance(expected, list):
        return actual, expected
    pairs = [
        ({key: one[key] for key in one.keys() & other.keys()}, {key: other[key] for key in one.keys() & other.keys()})
        for one, other in zip(actual, expected, strict=False)
        if isinstance(one, Mapping) and isinstance(other, Mapping)
    ]
    if len(pairs) != len(actual) or len(pairs) != len(expected):
        return actual, expected
    return [one for one, _ in pairs], [other for _, other in pairs]
