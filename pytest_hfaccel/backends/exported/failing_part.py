"""Where a conversion fails: the smallest part of a model that cannot be converted, or then compiled, by itself.

Each module is converted as the model is, by transformers' exporter and its runtime, with the inputs that it gets in the
model; only its inputs that are no tensors are constants. One that cannot be converted while all modules in it can is
the answer.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from pytest_hfaccel.backends.exported.capture import said_by_exporter, tracing
from pytest_hfaccel.backends.exported.conversions import Conversions
from pytest_hfaccel.core.errors import LoadError, error_line, line_of_transformers

if TYPE_CHECKING:
    from pytest_hfaccel.backends.exported import ExportedRuntime
    from pytest_hfaccel.core.spec import Device

    Call = tuple[tuple[Any, ...], dict[str, Any]]

_TEXT = 300


@dataclass(frozen=True)
class FailedPart:
    """A module that cannot be converted, or compiled.

    Attributes:
        name: Dotted path in the model; empty for the model itself.
        kind: Its class.
        shapes: Shapes of the tensors that it gets.
        error: What that ends with: the error's type and first line.
        place: The line of the model's code that was traced then, `file:line: code`; empty where none was.
    """

    name: str
    kind: str
    shapes: list[list[int]]
    error: str
    place: str


@dataclass
class ConversionSearch:
    """What was found.

    Attributes:
        compiled_for: The device that each converted module was then compiled for; empty where none was.
        smallest: The smallest part with which that fails; `None` where it fails with none, the model itself included.
        path: The modules around it with which it fails, too, the model first.
        converted: With how many modules by themselves it succeeded.
        not_tried: Modules whose turn did not come within the time, that the model did not call, or that were to be
            compiled and could not be converted by themselves.
    """

    compiled_for: str = ""
    smallest: FailedPart | None = None
    path: list[FailedPart] = field(default_factory=list)
    converted: int = 0
    not_tried: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the answer as lines of text."""
        done = f"converted and compiled for {self.compiled_for}" if self.compiled_for else "converted"
        if self.smallest is None:
            if "" in self.not_tried:
                yield f"Conversion: no part was found: each that was tried can be {done}; {self._not_tried()}."
            else:
                yield f"Conversion: the model can be {done}, with the shapes of its sample inputs."
            return
        part = self.smallest
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in part.shapes)
        where = part.name or "the model's own forward"
        yield f"Conversion: {where} ({part.kind}; {shapes}) is the smallest part that cannot be {done}: {part.error}"
        if part.place:
            yield f"  at {part.place}"
        if self.not_tried:
            yield f"  {self._not_tried()}"

    def _not_tried(self) -> str:
        names = [name or "the model itself" for name in self.not_tried]
        return f"left out: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if names[4:] else "")

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return {
            "compiled_for": self.compiled_for,
            "smallest": self.smallest and vars(self.smallest),
            "path": [vars(each) for each in self.path],
            "converted": self.converted,
            "not_tried": self.not_tried,
        }


def find_failing_part(
    runtime: ExportedRuntime,
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    seconds: float | None = None,
    *,
    device: Device | None = None,
) -> ConversionSearch:
    """Find the smallest module whose conversion fails.

    Args:
        runtime: Converts.
        model: The transformers model on the CPU in fp32.
        inputs: Arguments of its `forward`.
        seconds: Begin no conversion after so many.
        device: Also compile what was converted, for this device.
    """
    model.eval()
    deadline = None if seconds is None else time.monotonic() + seconds
    modules, calls = dict(model.named_modules()), _record(model, inputs)
    found = ConversionSearch(compiled_for=device.id if device is not None else "")

    def visit(name: str) -> FailedPart | None:
        if name not in calls or (deadline is not None and time.monotonic() > deadline):
            found.not_tried.append(name)
            return None
        error = _try(runtime, modules[name], calls[name], model, device)
        if error is None:
            found.converted += 1
            return None
        failed = _failed_part(name, modules[name], calls[name], error)
        # What fails at another stage than the model says nothing of it, but the parts in it may.
        is_like_model = device is None or isinstance(error, LoadError)
        if is_like_model:
            found.path.append(failed)
        else:
            found.not_tried.append(name)
        for part in _parts(name, calls):
            inner = visit(part)
            if inner is not None:
                return inner
        return failed if is_like_model else None

    found.smallest = visit("")
    found.path = [each for each in found.path if each is not found.smallest]
    return found


def _record(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, Call]:
    """Run a model; return copies of the arguments of each module's first call, in the order of the calls."""
    calls: dict[str, Call] = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():

            def before(_: Any, args: Any, kwargs: Any, *, name: str = name) -> None:
                if name not in calls:
                    calls[name] = copy.deepcopy((args, kwargs))

            hooks.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        model(**inputs)
    return calls


def _parts(name: str, calls: Mapping[str, Call]) -> list[str]:
    """Return the modules directly in one, or in containers of it that are not called (`ModuleList`), as they ran."""
    prefix = f"{name}." if name else ""
    inside = [each for each in calls if each.startswith(prefix) and each != name]
    return [each for each in inside if not any(each.startswith(f"{other}.") for other in inside)]


def _try(runtime: ExportedRuntime, module: Any, call: Call, model: Any, device: Device | None) -> Exception | None:
    part = _Part(module, call, model)
    try:
        with tracing():
            exported = runtime.convert(part, part.inputs, {}, stateful=False)
        if device is not None:
            _compile(runtime, exported, device, type(module).__name__)
    except Exception as error:  # whatever tracing, converting or compiling raises is the answer
        return error
    return None


def _compile(runtime: ExportedRuntime, exported: Any, device: Device, architecture: str) -> None:
    """Compile what was converted as a model's is: written, and read again."""
    with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
        store = Conversions(runtime, Path(folder))
        store.make("part", lambda: (exported, "static", []))
        runtime.compile(store.read("part").program, device, "fp32", architecture)


class _Part(torch.nn.Module):  # type: ignore[misc]
    """A module as a model of its own, whose inputs are the tensors among its arguments, by number.

    Args:
        module: The module.
        call: How it was called.
        model: The model that it is in.
    """

    main_input_name = "input_0"
    base_model_prefix = ""

    def __init__(self, module: Any, call: Call, model: Any) -> None:
        super().__init__()
        self.part, self.config = module, model.config
        leaves, self._structure = tree_flatten(call)
        self._leaves = leaves
        self._names = {f"input_{n}": n for n, each in enumerate(leaves) if isinstance(each, torch.Tensor)}
        self.inputs = {name: self._leaves[number] for name, number in self._names.items()}
        first = next(model.parameters())
        self.device, self.dtype = first.device, first.dtype

    def forward(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the module; return the tensors that it returns, by number."""
        leaves = list(self._leaves)
        for name, tensor in tensors.items():
            leaves[self._names[name]] = tensor
        args, kwargs = tree_unflatten(leaves, self._structure)
        output = tree_leaves(self.part(*args, **kwargs))
        return {f"output_{n}": each for n, each in enumerate(output) if isinstance(each, torch.Tensor)}


def _failed_part(name: str, module: Any, call: Call, error: Exception) -> FailedPart:
    shapes = [list(each.shape) for each in tree_leaves(call) if isinstance(each, torch.Tensor)]
    place = line_of_transformers(error, "models/")  # the last one is where tracing was
    return FailedPart(name, type(module).__name__, shapes, error_line(said_by_exporter(error))[:_TEXT], place)
