"""Direct computation of the text pipelines that do not generate."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.direct.base import forward, probabilities, ranked

_FILLS = 5  # documented default of the fill-mask pipeline's `top_k`


def fill_mask(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The most probable tokens for the one mask of a text."""
    tokenizer = context.pipe.tokenizer
    inputs = tokenizer(arguments[0], return_tensors="pt")
    ids = inputs["input_ids"][0]
    place = int((ids == tokenizer.mask_token_id).nonzero()[0])
    best = forward(context, inputs)["logits"][0, place].softmax(-1).topk(options.get("top_k", _FILLS))
    filled = []
    for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        sequence = ids.clone()
        sequence[place] = token
        text = tokenizer.decode(sequence[sequence != tokenizer.pad_token_id], skip_special_tokens=True)
        filled.append({"score": score, "token": token, "token_str": tokenizer.decode([token]), "sequence": text})
    return filled


def feature_extraction(context: CheckContext, arguments: tuple[Any, ...], _options: Any) -> Any:
    """The first output: nested lists of shape (1, tokens, features)."""
    outputs = forward(context, context.pipe.tokenizer(arguments[0], return_tensors="pt"))
    return next(iter(outputs.values())).tolist()


def text_classification(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The best label, or the best `top_k`."""
    logits = forward(context, context.pipe.tokenizer(arguments[0], return_tensors="pt"))["logits"][0]
    config = context.pipe.model.config
    return ranked(config, probabilities(config, logits), options.get("top_k", 1))


def token_classification(context: CheckContext, arguments: tuple[Any, ...], _options: Any) -> list[dict[str, Any]]:
    """One entity per token that is neither special nor labelled `O`."""
    tokenizer = context.pipe.tokenizer
    labels = context.pipe.model.config.id2label
    text = arguments[0]
    inputs = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True, return_offsets_mapping=True)
    special, offsets = inputs.pop("special_tokens_mask")[0], inputs.pop("offset_mapping")[0].tolist()
    best = forward(context, inputs)["logits"][0].float().softmax(-1).max(-1)
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
