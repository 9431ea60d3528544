"""Where greedy generation on a device leaves the reference: the first step, row and token, and both sides' logits.

`calls.py` looks at the reference alone: where its own `generate` leaves its `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.generation import generate_greedily
from pytest_hfaccel.explain.generation.calls import WITH_CACHE, WITHOUT_CACHE, OwnCalls
from pytest_hfaccel.explain.modules import Side, tensor_error, tensors_in

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.numerics.reference import Continuation

NEW_TOKENS = 8
"""As many as the check `generation` compares."""

_TOP = 5


@dataclass(frozen=True)
class Candidate:
    """A token at one step.

    Attributes:
        token: Its id.
        reference: Its logit in the reference.
        device: Its logit on the device; `None` where the device hands out tokens only.
    """

    token: int
    reference: float
    device: float | None


@dataclass(frozen=True)
class StepError:
    """The first step that is off in one way of generating.

    Attributes:
        way: `with cache` or `without cache`.
        row: Of the batch.
        step: Of the new tokens, from 0.
        token: The device's.
        expected: The reference's.
        gap: By how much the reference prefers its token to the device's, in logits.
        device_gap: By how much the device prefers its token to the reference's; `None` as for `Candidate.device`.
        error: Relative L2 error of the step's logits in that row; `None` likewise.
        budget: What it may be.
        errors: The same for this and all steps before it, where both sides had the same text.
        top: The tokens that either side likes best, in the order of the reference.
        module: On devices of torch the first module that gives something else at the last position, given the same
            there; empty where it is not known.
        kind: Its class.
    """

    way: str
    row: int
    step: int
    token: int
    expected: int
    gap: float
    device_gap: float | None
    error: float | None
    budget: float
    errors: tuple[float, ...]
    top: tuple[Candidate, ...]
    module: str = ""
    kind: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether its logits are off by more than allowed; another token alone may be a tie."""
        return self.token != self.expected if self.error is None else not self.error <= self.budget

    def lines(self) -> Iterator[str]:
        """Yield what is known as lines of text."""
        place = f"Generation {self.way}: row {self.row}, token {self.step}"
        if self.token == self.expected:
            allowed = f"{self.budget:.1e} are allowed"
            yield f"{place} is right ({self.token}), but its logits are off by {self.error:.1e}; {allowed}."
        else:
            off = (
                "" if self.error is None else f"; the logits are off by {self.error:.1e}, {self.budget:.1e} are allowed"
            )
            yield f"{place} is {self.token}, in the reference {self.expected}{off}."
            other = "" if self.device_gap is None else f", the device the other one by {self.device_gap:.3g}"
            yield f"  the reference prefers its token by {self.gap:.3g}{other}"
        if self.module:
            yield f"  first module that is off there: {self.module} ({self.kind})"
        if len(self.errors) > 1:
            yield f"  errors of the logits up to there: {', '.join(f'{each:.1e}' for each in self.errors)}"
        for each in self.top:
            device = "" if each.device is None else f", device {each.device:.6g}"
            yield f"  token {each.token}: reference {each.reference:.6g}{device}"


@dataclass(frozen=True)
class GenerationError:
    """How generation on a device differs from the reference.

    Attributes:
        found: The first step that is off, by way of generating; ways without one are left out.
        right: The ways that have none.
        problems: Why a way could not be run.
        own_calls: What the reference's own ways of generating say of each other.
    """

    found: tuple[StepError, ...]
    right: tuple[str, ...]
    problems: Mapping[str, str]
    own_calls: OwnCalls = field(default_factory=OwnCalls)

    @property
    def is_wrong(self) -> bool:
        """Whether some step is off by more than allowed, or `generate` is another than `forward`."""
        return bool(self.own_calls.others) or any(each.is_wrong for each in self.found)

    def lines(self) -> Iterator[str]:
        """Yield what is known as lines of text."""
        for each in self.found:
            yield from each.lines()
        ways = {each.way for each in self.found if each.is_wrong}
        if WITH_CACHE in ways and WITHOUT_CACHE in self.right:
            yield "Without a cache generation is right: what is kept between steps is wrong."
        elif self.right:
            yield f"Generation {' and '.join(self.right)} is right."
        yield from self.own_calls.lines()
        for way, problem in self.problems.items():
            yield f"Generation {way} was not looked at: {problem}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "steps": [asdict(each) for each in self.found],
            "right": list(self.right),
            "problems": dict(self.problems),
            "own_calls": asdict(self.own_calls),
        }


def explain_generation(
    loaded: LoadedModel, inputs: Mapping[str, torch.Tensor], expected: Continuation, budget: float
) -> GenerationError:
    """Generate on a device as the check `generation` does, and find the first step that differs.

    Args:
        loaded: The model on its device.
        inputs: Arguments of `generate`.
        expected: What the reference generates.
        budget: Relative L2 error that the logits of a step may have.
    """
    found, right, problems = [], [], {}
    for way in (WITH_CACHE, WITHOUT_CACHE):
        try:
            tokens, logits = _generate(loaded, inputs, expected.tokens.shape[1], use_cache=way == WITH_CACHE)
        except NotImplementedError as error:
            problems[way] = str(error)
            continue
        if tokens.shape != expected.tokens.shape:
            problems[way] = f"tokens of shape {tuple(tokens.shape)}, in the reference {tuple(expected.tokens.shape)}"
            continue
        step = _first_step(way, tokens, logits, expected, budget)
        if step is None:
            right.append(way)
        else:
            found.append(step)
    return GenerationError(tuple(found), tuple(right), problems)


def with_module(
    found: GenerationError, loaded: LoadedModel, reference: Any, inputs: Mapping[str, torch.Tensor]
) -> GenerationError:
    """Return what was found with the module behind each wrong step, if the reference is right in the same way.

    Args:
        found: What was found.
        loaded: The model on a device of torch.
        reference: The reference as a torch model.
        inputs: Arguments of `generate`.
    """
    import torch

    def generate_reference(new_tokens: int, use_cache: bool) -> None:
        with torch.inference_mode():
            generate_greedily(reference, moved, max_new_tokens=new_tokens, use_cache=use_cache)

    moved = Side(reference).moved(dict(inputs), "")
    steps = []
    for step in found.found:
        count, use_cache = step.step + 1, step.way == WITH_CACHE
        generate = partial(loaded.generate, inputs, max_new_tokens=count, use_cache=use_cache)
        got = _last_positions(loaded.pipeline_model(), generate, step)
        expected = _last_positions(reference, partial(generate_reference, count, use_cache), step)
        both = [name for name in expected if name in got]
        off = [
            name
            for name in both
            if tensor_error(got[name][0], expected[name][0]) <= step.budget
            and not tensor_error(got[name][1], expected[name][1]) <= step.budget
        ]
        first = next((name for name in off if not any(each.startswith(f"{name}.") for each in off)), "")
        kind = type(reference.get_submodule(first)).__name__ if first else ""
        steps.append(replace(step, module=first, kind=kind) if step.is_wrong else step)
    return replace(found, found=tuple(steps))


def _last_positions(
    model: Any, run: Callable[[], Any], step: StepError
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return what each module got and gave at a step, in the row and at the last position, in the order of return."""
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def last(value: torch.Tensor) -> torch.Tensor:
        value = value[step.row if value.shape[0] > step.row else 0]
        return (value[-1] if value.ndim else value).detach().clone()

    with ExitStack() as hooks:
        for name, module in model.named_modules():

            def keep(_module: Any, args: Any, kwargs: Any, output: Any, *, name: str = name) -> None:
                given, made = tensors_in((args, kwargs)), tensors_in(output)
                if given and made and given[0].ndim and made[0].ndim:
                    seen.setdefault(name, []).append((last(given[0]), last(made[0])))

            hooks.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        run()
    return {name: calls[step.step] for name, calls in seen.items() if len(calls) == step.step + 1}


def _generate(
    loaded: LoadedModel, inputs: Mapping[str, torch.Tensor], new_tokens: int, *, use_cache: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the new tokens, and the logits each was chosen by: (batch, new tokens, vocabulary), in fp64."""
    import torch

    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        if getattr(output, "logits", None) is not None:
            seen.append(output.logits[:, -1])

    handle = loaded.pipeline_model().register_forward_hook(keep)
    watch = getattr(loaded, "watch_logits", None)  # graphs with a cache run without the class
    try:
        if watch is not None:
            watch(seen.append)
        tokens = loaded.generate(inputs, max_new_tokens=new_tokens, use_cache=use_cache)
    finally:
        handle.remove()
        if watch is not None:
            watch(None)
    if len(seen) < new_tokens:
        return tokens, None
    return tokens, torch.stack([each.detach().double().cpu() for each in seen[-new_tokens:]], dim=1)


def _first_step(
    way: str, tokens: torch.Tensor, logits: torch.Tensor | None, expected: Continuation, budget: float
) -> StepError | None:
    """Return the earliest step whose logits are off, or whose token is another; rows are read until they part."""
    rows, steps = tokens.shape
    if logits is not None and logits.shape != expected.step_logits.shape:
        logits = None
    for step in range(steps):
        for row in range(rows):
            if not bool((tokens[row, :step] == expected.tokens[row, :step]).all()):
                continue
            error = None if logits is None else tensor_error(logits[row, step], expected.step_logits[row, step])
            same = int(tokens[row, step]) == int(expected.tokens[row, step])
            if same and (error is None or error <= budget):
                continue
            return _step_error(way, row, step, tokens, logits, expected, budget)
    return None


def _step_error(
    way: str,
    row: int,
    step: int,
    tokens: torch.Tensor,
    logits: torch.Tensor | None,
    expected: Continuation,
    budget: float,
) -> StepError:
    right = expected.step_logits[row]
    got = None if logits is None else logits[row]
    chosen, wanted = int(tokens[row, step]), int(expected.tokens[row, step])
    errors = () if got is None else tuple(tensor_error(got[each], right[each]) for each in range(step + 1))
    best = right[step].topk(min(_TOP, right.shape[-1])).indices.tolist()
    if got is not None:
        best += got[step].nan_to_num(-float("inf")).topk(min(_TOP, right.shape[-1])).indices.tolist()
    ranked = sorted({*best, chosen, wanted}, key=lambda token: -float(right[step, token]))
    return StepError(
        way=way,
        row=row,
        step=step,
        token=chosen,
        expected=wanted,
        gap=float(right[step, wanted] - right[step, chosen]),
        device_gap=None if got is None else float(got[step, chosen] - got[step, wanted]),
        error=errors[-1] if errors else None,
        budget=budget,
        errors=errors,
        top=tuple(
            Candidate(token, float(right[step, token]), None if got is None else float(got[step, token]))
            for token in ranked
        ),
    )
