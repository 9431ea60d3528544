"""Direct computation of the pipelines that generate text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext

if TYPE_CHECKING:
    import torch

_TOKENS = 4
"""Enough to tell whether the pipeline hands the model what it should and reads its answer: which tokens come is the
check `generation`'s."""

FORCED: dict[str, Any] = {"max_new_tokens": _TOKENS, "min_new_tokens": _TOKENS, "do_sample": False, "num_beams": 1}
"""Options of every call that generates: some pipelines sample or search with beams by default, and a tiny model may
end at once, which would leave no text to compare."""

FORCED_NESTED: dict[str, Any] = {"generate_kwargs": FORCED}
"""The same for the pipelines that take them in one argument."""


def generate(context: CheckContext, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> torch.Tensor:
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


def text_generation(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> list[dict[str, Any]]:
    """The prompt with its continuation."""
    prompt = arguments[0]
    tokenizer = context.pipe.tokenizer
    inputs = tokenizer(_before(context) + prompt, return_tensors="pt")
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    tokens = generate(context, kept, {name: options[name] for name in FORCED})
    continuation = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [{"generated_text": prompt + continuation}]


def _before(context: CheckContext) -> str:
    """What the pipeline puts before a prompt: XLNet makes little of a short one."""
    return str(context.pipe.XL_PREFIX) if context.cell.model.architecture == "XLNetLMHeadModel" else ""


def image_text_to_text(context: CheckContext, arguments: tuple[Any, ...], options: Any) -> str:
    """The answer to a chat with an image."""
    messages = options["text"] if "text" in options else arguments[0]
    processor = context.pipe.processor
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = generate(context, inputs, options["generate_kwargs"])
    answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(answer).strip()


def last_answer(result: Any) -> str:
    """Take the model's answer out of the result of a chat."""
    return str(result[0]["generated_text"][-1]["content"]).strip()
