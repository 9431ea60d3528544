"""A model that `torch.compile` has compiled: `cpu+inductor`, `cuda:0+inductor`, `cpu+openvino`."""

from __future__ import annotations

import inspect
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import torch

from pytest_hfaccel.backends.base import Placement, WeightChange
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.torch.model import TorchModel
from pytest_hfaccel.backends.torch.operators import ProductLog
from pytest_hfaccel.core.errors import HfAccelError, LoadError, first_line, format_names
from pytest_hfaccel.upstream.openvino import (
    clear_compiled_graphs,
    compile_refusals,
    graphs_given_back,
    operators_left_to_torch,
)
from pytest_hfaccel.upstream.torch import (
    compile_counters,
    compile_errors,
    compile_options,
    compile_or_fail,
    compiler_named,
    quietly,
)

_ALIVE: weakref.WeakSet[CompiledModel] = weakref.WeakSet()
"""Caches of compiled code can only be emptied as a whole: when the last of these is closed."""

_SHOWN_REASONS = 5


class CompiledModel(TorchModel):
    """A loaded model whose forward pass is compiled, also where a pipeline or `generate` calls it.

    Args:
        eager: The model as it was loaded; it is taken over.
        compiler: The backend of `torch.compile`.
        inputs: Keyword arguments of `forward`, on the CPU, for which it is compiled now.

    Raises:
        LoadError: Stage `compile`: it failed, or the model ran as it is.
    """

    def __init__(self, eager: TorchModel, compiler: str, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__(eager.release(), eager.dtype, eager.placement, eager.nbytes, dict(eager.timings))
        undo = ExitStack()
        undo.enter_context(compile_or_fail)
        self._end_compiling = weakref.finalize(self, undo.close)
        self._takes_cache = "use_cache" in inspect.signature(self._model.forward).parameters
        self._graphs = _Graphs(compiler)
        _ALIVE.add(self)
        try:
            with quietly():
                self._compile(self._moved(self._without_cache(inputs)))
        except Exception as error:
            self.close()
            if isinstance(error, HfAccelError):
                raise
            raise LoadError(f"{compiler}: {_text_of(error)}", stage="compile") from error

    @property
    def placement(self) -> Placement:
        """Where it is, how many graphs it was compiled to until now, and how often Python ran between them."""
        eager, graphs = self._eager_placement, self._graphs
        devices = {f"{device}+{graphs.compiler}" for device in eager.actual_devices}
        details = {**eager.details, "compile": graphs.facts()}
        if graphs.compiler == "openvino":
            details["not_taken"] = operators_left_to_torch()
        outside = graphs.products - graphs.products_inside
        if outside > 0:
            devices.update(eager.actual_devices)
            details["why_elsewhere"] = (
                f"{outside} of {graphs.products} products of matrices ran outside the compiled graphs"
                f"{graphs.breaks_text()}"
            )
        return replace(eager, actual_devices=tuple(sorted(devices)), details=details)

    @placement.setter
    def placement(self, value: Placement) -> None:
        self._eager_placement = value

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model once and wait for the result; without a cache, which is no result of a single pass."""
        return super().forward(self._without_cache(inputs))

    def generate(self, inputs: Mapping[str, torch.Tensor], *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
        """Generate greedily, without stopping early.

        Raises:
            NotImplementedError: With a cache, by OpenVINO.
        """
        if use_cache and self._graphs.compiler == "openvino":
            raise NotImplementedError("OpenVINO's backend of torch.compile cannot convert a cache of keys and values")
        return super().generate(inputs, max_new_tokens=max_new_tokens, use_cache=use_cache)

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return all of them; none for OpenVINO, which makes constants of them."""
        return frozenset() if self._graphs.compiler == "openvino" else frozenset(parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong; OpenVINO compiles it anew, before and after."""
        try:
            with super().perturbed(change) as wrong:
                self._forget_constants()
                yield wrong
        finally:
            self._forget_constants()

    def close(self) -> None:
        """Free the device's memory, and the compiled code with that of the last such model."""
        super().close()
        self._end_compiling()
        if self in _ALIVE:
            _ALIVE.discard(self)
            if not _ALIVE:
                _forget_compiled(self._graphs.compiler)

    def _compile(self, inputs: Mapping[str, Any]) -> None:
        """Compile by running; the time of compiling is what the first run took longer than the second."""
        graphs, seconds = self._graphs, []
        with out_of_memory_raised(self.placement.requested_device, "compile"), torch.inference_mode():
            with ProductLog() as log:
                self._model(**inputs)
            graphs.products = log.count
            self._model.forward = graphs.compiled(self._model.forward)
            for _ in range(2):
                started = time.perf_counter()
                self._model(**inputs)
                self._synchronize()
                seconds.append(time.perf_counter() - started)
            self.timings["compile"] = max(seconds[0] - seconds[1], 0.0)
            graphs.count_products(lambda: self._model(**inputs))
        if not graphs.count:
            raise LoadError(
                f"torch.compile made no graph: the model ran as it is{graphs.breaks_text()}", stage="compile"
            )
        if graphs.products and not graphs.products_inside:
            raise LoadError(
                f"none of the {graphs.products} products of matrices is in a compiled graph: "
                f"the model ran as it is{graphs.breaks_text()}",
                stage="compile",
            )

    def _forget_constants(self) -> None:
        if self._graphs.compiler == "openvino":
            _forget_compiled("openvino")

    def _without_cache(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        return {**inputs, "use_cache": False} if self._takes_cache else inputs


class _Graphs:
    """The graphs of one model: a backend of `torch.compile`, which calls it with each of them.

    Attributes:
        compiler: The backend that compiles them.
        count: How many there were.
        breaks: How often the forward pass could not be followed, by reason.
        products: Products of matrices in a forward pass.
        products_inside: Those of them that are in graphs.
    """

    def __init__(self, compiler: str) -> None:
        self.compiler = compiler
        self.count = 0
        self.compiling_runs = 0
        self.breaks: Counter[str] = Counter()
        self.products = self.products_inside = 0
        self.__name__ = compiler  # that torch's messages have
        self._compile = compiler_named(compiler)
        self._options = compile_options(compiler)
        self._log: ProductLog | None = None

    def __call__(self, graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        """Compile a graph."""
        options = {"options": self._options} if self._options else {}
        with compile_refusals() as refusals, quietly():
            compiled = self._compile(graph, inputs, **options)
        if refusals:
            raise RuntimeError("\n".join(refusals))
        self.count += 1

        def run(*arguments: Any) -> Any:
            if self._log is not None:
                with self._log:
                    graph(*arguments)
            return compiled(*arguments)

        return run

    def compiled(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a model's method `forward`, compiled; where torch would run it uncompiled, it fails."""
        counters, on_openvino = compile_counters(), self.compiler == "openvino"
        # OpenVINO cannot convert the graphs of variable sizes that torch makes at the second size of an input.
        compiled = torch.compile(forward, backend=self, dynamic=False if on_openvino else None)

        @wraps(forward)
        def run(*arguments: Any, **named: Any) -> Any:
            graphs, breaks = self.count, dict(counters["graph_break"])
            given_back = graphs_given_back() if on_openvino else 0
            try:
                outputs = compiled(*arguments, **named)
            except compile_errors() as error:
                raise LoadError(f"{self.compiler}: {_text_of(error)}{self.breaks_text()}", stage="compile") from error
            except Exception:
                if on_openvino:  # after an error that is the model's own its compiler fails, also for other inputs
                    _forget_compiled("openvino")
                raise
            finally:
                if self.count > graphs:
                    self.compiling_runs += 1
                    self.breaks.update(counters["graph_break"])
                    self.breaks.subtract(breaks)
            if on_openvino and graphs_given_back() > given_back:
                raise LoadError("OpenVINO failed to run a graph, and gave it back to torch", stage="compile")
            return outputs

        return run

    def count_products(self, run: Callable[[], Any]) -> None:
        """Count the products of matrices in the graphs of a run, each of which is run once more as it is."""
        self._log = log = ProductLog()
        try:
            run()
        finally:
            self._log = None
        self.products_inside = log.count

    def facts(self) -> dict[str, Any]:
        """Return what stands in `Placement.details`."""
        return {
            "backend": self.compiler,
            "graphs": self.count,
            "compiling_runs": self.compiling_runs,
            "breaks": self.breaks.total(),
            "break_reasons": self._reasons(),
            "products": self.products,
            "products_inside": self.products_inside,
        }

    def breaks_text(self) -> str:
        """Return the reasons for which torch left the graph, to end a message with; empty without any."""
        reasons = self._reasons()
        return f". It left the graph for: {format_names(reasons, _SHOWN_REASONS)}" if reasons else ""

    def _reasons(self) -> list[str]:
        return list(dict.fromkeys(first_line(reason) for reason in +self.breaks))


def _forget_compiled(compiler: str) -> None:
    torch.compiler.reset()
    if compiler == "openvino":
        clear_compiled_graphs()


def _text_of(error: BaseException) -> str:
    """Return what an error says without torch's advice on debugging."""
    text = str(error).partition("\n\nSet TORCHDYNAMO_VERBOSE")[0].strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
