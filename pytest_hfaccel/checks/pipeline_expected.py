"""What each pipeline must give, computed without it: one small function per task.

Each function takes the context, the positional arguments of the pipeline call and its keyword arguments, and returns
the expected result. Post-processing is written out from the documentation of the pipeline, not taken from its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.core.tasks import generates

if TYPE_CHECKING:
    import torch

Options = Mapping[str, Any]
Arguments = tuple[Any, ...]
Records = list[dict[str, Any]]

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


def _fill_mask(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The most probable tokens for the one mask of a text."""
    tokenizer = context.pipe.tokenizer
    inputs = tokenizer(arguments[0], return_tensors="pt")
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


def _feature_extraction(context: CheckContext, arguments: Arguments, _options: Options) -> Any:
    """The first output: nested lists of shape (1, tokens, features)."""
    outputs = _forward(context, context.pipe.tokenizer(arguments[0], return_tensors="pt"))
    return next(iter(outputs.values())).tolist()


def _text_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The best label, or the best `top_k`."""
    inputs = context.pipe.tokenizer(arguments[0], return_tensors="pt")
    return _best_labels(context, inputs, options.get("top_k", 1))


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
    prompt = arguments[0]
    tokenizer = context.pipe.tokenizer
    # The pipeline puts a text before XLNet's prompts: it makes little of a short one.
    prefix = str(context.pipe.XL_PREFIX) if context.cell.model.architecture == "XLNetLMHeadModel" else ""
    inputs = tokenizer(prefix + prompt, return_tensors="pt")
    arguments_of_generate = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    tokens = _generate(context, arguments_of_generate, {name: options[name] for name in GREEDY})
    continuation = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [{"generated_text": prompt + continuation}]


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


def _image_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The best labels of an image."""
    inputs = context.pipe.image_processor(arguments[0], return_tensors="pt")
    return _best_labels(context, inputs, options.get("top_k", _TOP_LABELS))


def _image_feature_extraction(context: CheckContext, arguments: Arguments, _options: Options) -> Any:
    """The first output: nested lists of shape (1, patches, features)."""
    outputs = _forward(context, context.pipe.image_processor(arguments[0], return_tensors="pt"))
    return next(iter(outputs.values())).tolist()


def _zero_shot_image_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The candidate labels by how well their sentence fits the image."""
    # SigLIP was trained with texts of one length, and on each pair by itself: its scores do not add up to one.
    sigmoid = "siglip" in context.pipe.model.config.model_type
    image = context.pipe.image_processor([arguments[0]], return_tensors="pt")
    texts = _candidate_texts(context, options, _IMAGE_TEMPLATE, _PADDED_TO_64 if sigmoid else {"padding": True})
    logits = _forward(context, {**texts, **image})["logits_per_image"][0]
    return _zero_shot(options["candidate_labels"], logits.sigmoid() if sigmoid else logits.softmax(-1))


def _object_detection(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The objects above the threshold, with boxes in pixels of the image."""
    import torch

    image = arguments[0]
    processor = context.pipe.image_processor
    outputs = SimpleNamespace(**_forward(context, processor([image], return_tensors="pt")))
    size = torch.tensor([[image.height, image.width]])
    objects = processor.post_process_object_detection(outputs, options.get("threshold", _DETECTION_THRESHOLD), size)[0]
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
    inputs = _sound_features(context, arguments[0], return_attention_mask=True)
    tokenizer = context.pipe.tokenizer
    if generates(context.cell.model):
        tokens = _generate(context, inputs, options.get("generate_kwargs", {}))
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()
    tokens = _forward(context, inputs)["logits"][0].argmax(-1)
    return str(tokenizer.decode(tokens)).strip()


def _audio_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The labels of a recording; all of them unless `top_k` says otherwise."""
    return _best_labels(context, _sound_features(context, arguments[0]), options.get("top_k"))


def _zero_shot_audio_classification(context: CheckContext, arguments: Arguments, options: Options) -> Records:
    """The candidate labels by how well their sentence fits the recording."""
    sound = _sound_features(context, [arguments[0]])
    texts = _candidate_texts(context, options, _SOUND_TEMPLATE, {"padding": True})
    logits = _forward(context, {**texts, **sound})["logits_per_audio"][0]
    return _zero_shot(options["candidate_labels"], logits.softmax(-1))


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


def _best_labels(context: CheckContext, inputs: Mapping[str, Any], top_k: int | None) -> Records:
    """Return `label` and `score` of the best labels, the best first; of all of them where `top_k` is `None`."""
    config = context.pipe.model.config
    logits = _forward(context, inputs)["logits"][0].float()
    if config.problem_type == "regression":
        scores = logits
    elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
        scores = logits.sigmoid()
    else:
        scores = logits.softmax(-1)
    best = scores.sort(descending=True, stable=True)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"label": config.id2label[index], "score": score} for score, index in pairs][:top_k]


def _candidate_texts(context: CheckContext, options: Options, template: str, padding: Options) -> Mapping[str, Any]:
    """Tokenize a sentence for each of the candidate labels."""
    template = options.get("hypothesis_template", template)
    sentences = [template.format(label) for label in options["candidate_labels"]]
    tokens: Mapping[str, Any] = context.pipe.tokenizer(sentences, return_tensors="pt", **padding)
    return tokens


def _zero_shot(labels: list[str], scores: torch.Tensor) -> Records:
    """Return candidate labels with their scores, the best first."""
    best_first = sorted(zip(scores.tolist(), labels, strict=True), reverse=True)
    return [{"score": score, "label": label} for score, label in best_first]


def _sound_features(context: CheckContext, audio: Any, **options: Any) -> Any:
    extractor = context.pipe.feature_extractor
    samples = audio["raw"] if isinstance(audio, dict) else audio
    return extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)


def _last_answer(result: Any) -> str:
    """Take the model's answer out of the result of a chat."""
    return str(result[0]["generated_text"][-1]["content"]).strip()


def _stripped_text(result: Any) -> str:
    """Take the text out of the result of speech recognition."""
    return str(result["text"]).strip()


@dataclass(frozen=True)
class Expected:
    """How to get a pipeline's result without the pipeline.

    Attributes:
        compute: Takes context, positional and keyword arguments of the call; returns the expected result.
        options: Keyword arguments that every call gets, so that its result is defined (greedy generation).
        compared: Takes the part of the pipeline's result that is compared.
    """

    compute: Callable[[CheckContext, Arguments, Options], Any]
    options: Options = field(default_factory=dict)
    compared: Callable[[Any], Any] = lambda result: result


_GREEDY_NESTED: Options = {"generate_kwargs": GREEDY}

EXPECTED: dict[str, Expected] = {
    "fill-mask": Expected(_fill_mask),
    "feature-extraction": Expected(_feature_extraction),
    "text-classification": Expected(_text_classification),
    "token-classification": Expected(_token_classification),
    "text-generation": Expected(_text_generation, GREEDY),
    "image-text-to-text": Expected(_image_text_to_text, _GREEDY_NESTED, _last_answer),
    "image-classification": Expected(_image_classification),
    "image-feature-extraction": Expected(_image_feature_extraction),
    "zero-shot-image-classification": Expected(_zero_shot_image_classification),
    "object-detection": Expected(_object_detection),
    "automatic-speech-recognition": Expected(_speech_recognition, _GREEDY_NESTED, _stripped_text),
    "audio-classification": Expected(_audio_classification),
    "zero-shot-audio-classification": Expected(_zero_shot_audio_classification),
}
"""By pipeline task; every task of `pytest_hfaccel.core.tasks` that has a pipeline is here."""
