"""How the reference's own `generate` leaves its `forward` on the same text, and whose code makes the difference.

A class that decodes otherwise than its `forward` predicts is wrong on every device, so that no device tells. Here the
reference alone is run: each step of `generate`, with and without a cache, beside one plain forward pass over the text
so far. Of the first step that differs, the calls of all modules are compared in the order in which they begin and end.
The first argument that is another names the code that made it; to be sure, the step is run again with the argument of
the plain forward pass put in its place.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from pytest_hfaccel.backends.base import is_padded
from pytest_hfaccel.backends.generation import generate_greedily
from pytest_hfaccel.core.errors import error_line
from pytest_hfaccel.explain.modules import Side, copied, tensor_error, tensors_in

SAME_LOGITS = 1e-5
"""Rel-L2 between two computations of the reference, as in the check `generation`."""

WITH_CACHE, WITHOUT_CACHE = "with cache", "without cache"

_MOST_TRIED = 8
"""Calls whose arguments are replaced, until a replacement makes the step right."""

_SHOWN = 5
_PLACES_OF_TEXT = frozenset({"input_ids", "decoder_input_ids", "attention_mask", "token_type_ids"})
_SETTINGS = frozenset({"use_cache", "return_dict", "logits_to_keep", "past_key_values", "cache_position"})
"""Arguments that say how to compute, not what of: other values of them are no difference."""


@dataclass(frozen=True)
class Argument:
    """An argument that `generate` hands over and the plain forward pass does not, or with other numbers.

    Attributes:
        name: Of the parameter.
        generate: Its first numbers, or `None`.
        forward: The same of the plain forward pass.
        error_left: Relative L2 error of the step's logits with forward's argument in its place; `None` where that was
            not tried, or cannot be run.
    """

    name: str
    generate: str
    forward: str
    error_left: float | None = None

    def text(self) -> str:
        """Return it in words."""
        left = "" if self.error_left is None else f" (with forward's the logits are off by {self.error_left:.1e})"
        return f"{self.name} = {self.generate}, in forward {self.forward}{left}"


@dataclass(frozen=True)
class OtherCall:
    """The first step of the reference's `generate` that is another than its `forward` on the same text.

    Attributes:
        way: `with cache` or `without cache`.
        step: Of the new tokens, from 0.
        error: Relative L2 error between the logits of both.
        extra: Arguments that only `generate` hands the model.
        module: The first module that gets something else, or that gives something else of the same; empty for none.
        kind: Its class.
        caller: The module whose `forward` hands it something else; `None` where it gets the same.
        arguments: What it gets that is another.
        is_proven: Whether with forward's arguments in their place the step is right.
    """

    way: str
    step: int
    error: float
    extra: tuple[Argument, ...]
    module: str
    kind: str
    caller: str | None
    arguments: tuple[Argument, ...]
    is_proven: bool

    def lines(self) -> Iterator[str]:
        """Yield what is known as lines of text."""
        if self.step == 0:
            yield (
                "The reference's generate begins with other logits than its forward gives, off by "
                f"{self.error:.1e}: it is the class's code, on every device."
            )
        else:
            yield (
                f"The reference's generate {self.way} gives token {self.step} other logits than its forward on the same"
                f" text, off by {self.error:.1e}: it is the class's code, on every device."
            )
        if self.extra:
            yield f"  only generate hands the model: {'; '.join(each.text() for each in self.extra)}"
        if not self.module:
            return
        if self.caller is None:
            yield f"  first module whose output is another: {self.module} ({self.kind})"
            return
        caller = self.caller or "the model's own forward"
        yield f"  {caller} hands {self.module} ({self.kind}): {'; '.join(each.text() for each in self.arguments)}"
        if self.is_proven:
            yield "  with forward's in their place the step is right"


@dataclass(frozen=True)
class OwnCalls:
    """What the reference's own ways of generating say of each other.

    Attributes:
        others: The first step of each way that is another than `forward`; a step that both ways share stands once.
        right: The ways in which each step is what `forward` gives.
        problem: Why they were not compared; empty where they were.
    """

    others: tuple[OtherCall, ...] = ()
    right: tuple[str, ...] = ()
    problem: str = ""

    def lines(self) -> Iterator[str]:
        """Yield what is known as lines of text."""
        for each in self.others:
            yield from each.lines()
        if self.others and self.right:
            yield f"The reference's generate {' and '.join(self.right)} gives what its forward gives."


def compare_own_calls(model: Any, inputs: Mapping[str, torch.Tensor], new_tokens: int) -> OwnCalls:
    """Compare each step of the reference's `generate`, in both ways, with its `forward` on the text so far.

    Args:
        model: The reference, on the CPU.
        inputs: Arguments of `generate`.
        new_tokens: Steps to compare.
    """
    if is_padded(inputs) and not model.config.is_encoder_decoder:
        return OwnCalls(problem="the prompts are padded, which moves positions")
    moved = Side(model).moved(dict(inputs), "")
    others: list[OtherCall] = []
    right: list[str] = []
    for way in (WITH_CACHE, WITHOUT_CACHE):
        try:
            other, compared = _Steps(model, moved, way, new_tokens).first_other()
        except Exception as error:  # whatever a class may raise whose forward takes no longer text
            return OwnCalls(tuple(others), tuple(right), error_line(error))
        if other is None and compared:
            right.append(way)
        elif other is not None and not any(each.step == other.step == 0 for each in others):
            others.append(other)
    return OwnCalls(tuple(others), tuple(right))


@dataclass
class _Event:
    """The beginning or the end of a module's call.

    Attributes:
        module: Dotted path.
        count: How many calls of it came before.
        begins: Whether it is the beginning.
        values: The arguments by name, or what is returned.
        caller: The module that was running; the model itself has none.
    """

    module: str
    count: int
    begins: bool
    values: dict[str, Any]
    caller: str | None

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.module, self.count, self.begins


class _Steps:
    """The steps of one way of generating, each beside a plain forward pass."""

    def __init__(self, model: Any, inputs: Mapping[str, torch.Tensor], way: str, new_tokens: int) -> None:
        self._model, self._inputs, self._way, self._new_tokens = model, inputs, way, new_tokens
        self._modules = dict(model.named_modules())
        self._takes = set(inspect.signature(model.forward).parameters)
        self._budget = SAME_LOGITS
        self._is_cached = False

    def first_other(self) -> tuple[OtherCall | None, bool]:
        """Return the first step that differs, and whether any was compared."""
        tokens, calls, logits = self._generate()
        first = len(calls) - tokens.shape[1]  # passes before the first token (language detection) are left out
        if first < 0:
            return None, False
        for step in range(tokens.shape[1]):
            text = self._text(calls[first], tokens[:, :step])
            plain = self._forward(text)
            if plain.shape != logits[first + step].shape:
                return None, step > 0
            error = tensor_error(logits[first + step], plain)
            if error != error or not bool(plain.isfinite().any()):
                return None, step > 0
            if error > self._budget:
                self._is_cached = self._way == WITH_CACHE and step > 0
                return self._explained(step, first + step, text, plain, error), True
        return None, True

    def _generate(
        self, watched: int | None = None, events: list[_Event] | None = None
    ) -> tuple[torch.Tensor, list[dict[str, Any]], list[torch.Tensor]]:
        """Generate; return the tokens, the arguments of each call of the model, and the logits that each ended with.

        Args:
            watched: The number of a call whose modules are recorded.
            events: Gets what they do.
        """
        calls: list[dict[str, Any]] = []
        logits: list[torch.Tensor] = []
        recording = ExitStack()

        def before(_: Any, args: Any, kwargs: Any) -> None:
            calls.append(copied(_bound(self._model, args, kwargs)))
            if events is not None and len(calls) - 1 == watched:
                recording.enter_context(self._recorded(events, calls[-1]))

        def after(_: Any, __: Any, output: Any) -> None:
            recording.close()
            logits.append(_logits_of(output)[:, -1].clone())

        with ExitStack() as hooks, recording, torch.inference_mode():
            hooks.callback(self._model.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(self._model.register_forward_hook(after).remove)
            tokens = generate_greedily(
                self._model, self._inputs, max_new_tokens=self._new_tokens, use_cache=self._way == WITH_CACHE
            )
        return tokens, calls, logits

    def _text(self, start: Mapping[str, Any], tokens: torch.Tensor) -> dict[str, Any]:
        """Return arguments of `forward` for the text so far."""
        text: dict[str, Any] = dict(self._inputs)
        if "use_cache" in self._takes:
            text["use_cache"] = False
        if self._model.config.is_encoder_decoder:
            begin = start["decoder_input_ids"]
            return {**text, "decoder_input_ids": torch.cat([begin, tokens.to(begin)], dim=1)}
        prompt = text["input_ids"]
        for name in ("attention_mask", "token_type_ids"):
            if name in text and text[name].ndim == prompt.ndim:
                more = text[name][:, -1:].expand(-1, tokens.shape[1])
                text[name] = torch.cat([text[name], more], dim=1)
        return {**text, "input_ids": torch.cat([prompt, tokens.to(prompt)], dim=1)}

    def _forward(self, arguments: Mapping[str, Any], events: list[_Event] | None = None) -> torch.Tensor:
        """Return the logits at the last position."""
        with torch.inference_mode(), ExitStack() as recording:
            if events is not None:
                recording.enter_context(self._recorded(events, dict(arguments)))
            return _logits_of(self._model(**copied(dict(arguments))))[:, -1]

    @contextmanager
    def _recorded(self, events: list[_Event], arguments: Mapping[str, Any]) -> Iterator[None]:
        """Record the beginnings and ends of the calls of modules in one call of the model."""
        running = [""]
        counts: Counter[str] = Counter()
        events.append(_Event("", 0, True, _flat(arguments), None))
        with ExitStack() as hooks:
            for name, module in self._modules.items():
                if not name:
                    continue

                def before(module: Any, args: Any, kwargs: Any, *, name: str = name) -> None:
                    values = copied(_flat(_bound(module, args, kwargs)))
                    events.append(_Event(name, counts[name], True, values, running[-1]))
                    running.append(name)

                def after(_: Any, __: Any, output: Any, *, name: str = name) -> None:
                    running.pop()
                    values = {str(number): copied(each) for number, each in enumerate(tensors_in(output))}
                    events.append(_Event(name, counts[name], False, values, running[-1]))
                    counts[name] += 1

                hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(after).remove)
            yield

    def _explained(
        self, step: int, number: int, text: Mapping[str, Any], plain: torch.Tensor, error: float
    ) -> OtherCall:
        made: list[_Event] = []
        wanted: list[_Event] = []
        _, calls, _ = self._generate(number, made)
        self._forward(text, wanted)
        call, by_key = calls[number], {each.key: each for each in wanted}
        extra = [
            Argument(name, _shown(value), "None", self._error_without(call, name, plain))
            for name, value in call.items()
            if isinstance(value, torch.Tensor) and text.get(name) is None and name not in _PLACES_OF_TEXT | _SETTINGS
        ]
        first: OtherCall | None = None
        tried = 0
        for event, other, arguments in self._differences(made, by_key):
            kind = type(self._modules[event.module]).__name__
            measured, left = arguments, None
            if event.begins and not self._is_cached:
                measured, left = self._with_forwards(call, event, other, arguments, plain)
                tried += 1
            proven = left is not None and left <= self._budget
            caller = event.caller if event.begins else None
            found = OtherCall(self._way, step, error, tuple(extra), event.module, kind, caller, tuple(measured), proven)
            first = first or found
            if proven or not event.begins or tried >= _MOST_TRIED:
                return found if proven else first
        return first or OtherCall(self._way, step, error, tuple(extra), "", "", None, (), False)

    def _differences(
        self, made: list[_Event], wanted: Mapping[tuple[str, int, bool], _Event]
    ) -> Iterator[tuple[_Event, _Event, list[Argument]]]:
        """Yield calls that get something else than in the plain pass, and calls that give something else of the same.

        What a module only hands on, as it got it, is not its doing.
        """
        handed: dict[str, dict[str, tuple[Any, Any]]] = {}
        same: set[tuple[str, int]] = set()
        for event in made:
            other = wanted.get(event.key)
            if other is None:
                continue
            pairs = {
                name: (event.values.get(name), other.values.get(name))
                for name in dict.fromkeys((*event.values, *other.values))
                if name.partition("[")[0] not in _SETTINGS
            }
            off = {name: pair for name, pair in pairs.items() if self._differs(*pair)}
            if not event.begins:
                if off and (event.module, event.count) in same and event.module:
                    yield event, other, []
                continue
            if not off:
                same.add((event.module, event.count))
                continue
            inherited = handed.get(event.caller or "", {}) if event.caller is not None else off
            handed[event.module] = off
            own = {
                name: pair
                for name, pair in off.items()
                if not any(_is_same(pair[0], mine) and _is_same(pair[1], theirs) for mine, theirs in inherited.values())
            }
            if own:
                yield event, other, [Argument(name, _shown(a), _shown(b)) for name, (a, b) in own.items()]

    def _differs(self, one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            if one.shape == other.shape:
                return not tensor_error(one, other) <= self._budget
            if self._is_cached and one.ndim == other.ndim and one.ndim in (2, 3) and one.shape[:1] == other.shape[:1]:
                # A cached step computes the last position only.
                return one[:, -1].shape == other[:, -1].shape and not (
                    tensor_error(one[:, -1], other[:, -1]) <= self._budget
                )
            return not self._is_cached
        if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
            return not self._is_cached  # one position needs no mask
        return False

    def _error_without(self, call: Mapping[str, Any], name: str, plain: torch.Tensor) -> float | None:
        """Return the error of a step's logits without one argument of the model."""
        if self._is_cached:
            return None
        with suppress(Exception):
            return tensor_error(self._forward({key: value for key, value in call.items() if key != name}), plain)
        return None

    def _with_forwards(
        self,
        call: Mapping[str, Any],
        event: _Event,
        other: _Event,
        arguments: list[Argument],
        plain: torch.Tensor,
    ) -> tuple[list[Argument], float | None]:
        """Run the step with arguments of the plain pass in their place: each alone, and all together.

        Returns:
            The arguments with the error that is left, and the error with all of them replaced.
        """

        def error_with(names: list[str]) -> float | None:
            counter = Counter[str]()

            def replace_arguments(module: Any, args: Any, kwargs: Any) -> Any:
                counter["calls"] += 1
                if counter["calls"] - 1 != event.count:
                    return None
                bound = inspect.signature(module.forward).bind(*args, **kwargs)
                for name in names:
                    bound.arguments[name] = copied(other.values.get(name))
                return bound.args, bound.kwargs

            handle = self._modules[event.module].register_forward_pre_hook(replace_arguments, with_kwargs=True)
            try:
                return tensor_error(self._forward(call), plain)
            except Exception:  # an argument of another shape, or one that cannot be replaced alone
                return None
            finally:
                handle.remove()

        names = [each.name for each in arguments]
        together = error_with(names)
        measured = [
            Argument(each.name, each.generate, each.forward, error_with([each.name]) if len(names) > 1 else together)
            for each in arguments
        ]
        return measured, together


def _bound(module: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return arguments by the names of the parameters of `forward`."""
    try:
        signature = inspect.signature(module.forward)
        named = dict(signature.bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {**{str(number): each for number, each in enumerate(args)}, **kwargs}
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors, and what is `None`, by name; those in tuples and lists by `name[index]`."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is None or isinstance(value, torch.Tensor):
            flat[name] = value
        elif isinstance(value, (tuple, list, dict)):
            leaves, _ = tree_flatten_with_path(value)
            flat |= {name + keystr(path): leaf for path, leaf in leaves if isinstance(leaf, torch.Tensor)}
    return flat


def _logits_of(output: Any) -> torch.Tensor:
    logits = output["logits"] if isinstance(output, dict) and "logits" in output else output[0]
    if not isinstance(logits, torch.Tensor):
        raise TypeError("the model gives no logits")
    return logits.detach()


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    return one is None and other is None


def _shown(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return str(value)
    numbers = ", ".join(
        f"{each:.6g}" if isinstance(each, float) else str(each) for each in value.reshape(-1)[:_SHOWN].tolist()
    )
    shape = "x".join(map(str, value.shape)) or "scalar"
    return f"[{numbers}{', ...' if value.numel() > _SHOWN else ''}] ({shape})"
