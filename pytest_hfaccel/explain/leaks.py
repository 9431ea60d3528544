"""Where what a run leaves behind was allocated: tensors by the operator that made them, other objects by their line.

A model is run again and again, in three passes, so that no way of looking counts what another one keeps:

1. counters: the memory of the process or device, and what the backend can count below it, before and after some runs;
2. tensors: each operator's output is noted with the line of Python that asked for it. What several runs made and is
   still alive some runs later was left behind. The objects that hold it are followed up to a module or a variable;
3. other objects: `tracemalloc` says which lines allocated memory that grows with the runs.
"""

from __future__ import annotations

import gc
import linecache
import sys
import tracemalloc
import types
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_hfaccel.core.errors import error_line, format_bytes
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.explain.modules import tensors_in

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel

    Tensors = Mapping[str, torch.Tensor]

_RUNS = 4
_WARM_UP = 2
"""Runs before anything is counted: they fill caches that are filled once."""

_FRAMES = 24
_SHOWN_FRAMES = 3
_SHOWN_SITES = 4
_HOLDERS = 6
"""References that are followed from a tensor to what holds it."""

_LEAST_SHARE = 0.01
"""Sites that leave less than this share of the largest one's bytes are not shown."""

_LEAST_OBJECTS = 1024
"""Bytes per run that a line must leave in Python objects. Without a leak up to 240 were seen: lists of free blocks."""

_LEAST_GROWTH = 2**19
"""Bytes per run by which a counter must grow to be called growing: half of what the check `memory` must notice. A
browser without a leak moved by a fifth of that."""

_PACKAGE = str(Path(__file__).resolve().parents[1])
_TORCH = str(Path(torch.__file__).parent)
_HELPERS = tuple(f"{Path(module.__file__ or '')}" for module in (linecache, tracemalloc, weakref))
_STANDARD = str(Path(linecache.__file__).parent)

Frame = tuple[str, int, str]
"""File, line and function."""


@dataclass(frozen=True)
class LeakSite:
    """A line whose allocations stay.

    Attributes:
        file: Its path.
        line: Its number.
        function: The function that it is in; empty where it is not known.
        callers: The lines that led there, the nearest first, as `file:line`.
        bytes_per_run: What a run leaves behind there.
        count_per_run: In how many tensors or blocks of memory.
        operator: The operator whose output it is, such as `aten.gelu.default`; empty for other objects than tensors.
        shape: The shape of that output.
        module: The module that was running: its path in the model; empty where it is not known.
        kind: The module's class.
        holder: What holds it: an attribute of a module, or a variable; empty where that was not found.
    """

    file: str
    line: int
    function: str
    callers: tuple[str, ...]
    bytes_per_run: float
    count_per_run: float
    operator: str = ""
    shape: tuple[int, ...] = ()
    module: str = ""
    kind: str = ""
    holder: str = ""

    @property
    def place(self) -> str:
        """The line, as `file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def cause(self) -> Cause:
        """Whose code it is: ours, or the class's with all that it calls."""
        return Cause.OURS if self.file.startswith(_PACKAGE) else Cause.TRANSFORMERS

    def lines(self) -> Iterator[str]:
        """Yield it as lines of text."""
        shape = "x".join(map(str, self.shape)) or "scalar"
        what = f"output of {self.operator} ({shape})" if self.operator else "in Python objects"
        code = linecache.getline(self.file, self.line).strip()
        size = format_bytes(round(self.bytes_per_run))
        yield f"Leak: each run leaves {size}, {what}, allocated at {self.place}{code and f': {code}'}"
        if self.module or self.kind:
            yield f"  in {self.module or 'the model itself'} ({self.kind})"
        if self.holder:
            yield f"  held by {self.holder}"
        if self.callers:
            yield f"  called from {', '.join(self.callers)}"


@dataclass(frozen=True)
class LeakExplanation:
    """What several runs of a model leave behind.

    Attributes:
        sites: The lines whose allocations stay, the largest first.
        owners: Lines that leave small objects behind, the same number with each run. Shown where nothing else is found:
            such an object may own memory that Python does not count.
        growth: Bytes by which each counter grew per run: `process` or `allocator`, and what the backend counts besides.
        problems: Why a pass could not be made, by its name.
    """

    sites: tuple[LeakSite, ...] = ()
    owners: tuple[LeakSite, ...] = ()
    growth: Mapping[str, float] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def grows(self) -> bool:
        """Whether some counter does."""
        return any(each >= _LEAST_GROWTH for each in self.growth.values())

    @property
    def cause(self) -> Cause | None:
        """Whose code leaves something behind; `None` where nothing is known to stay."""
        if self.sites or (self.grows and self.owners):
            return (self.sites or self.owners)[0].cause
        return Cause.RUNTIME if self.grows and not self.problems else None

    def lines(self) -> Iterator[str]:
        """Yield what is known as lines of text."""
        for site in self.sites[:_SHOWN_SITES]:
            yield from site.lines()
        if not self.sites and self.grows and self.owners:
            yield "Leak: memory that Python does not count. Objects stay that may own it:"
            for site in self.owners[:_SHOWN_SITES]:
                yield f"  {site.count_per_run:g} per run from {site.place}"
        elif not self.sites and self.grows and not self.problems:
            yield (
                "Leak: it is neither in tensors nor in Python objects but in memory of the runtime, which does not say "
                "by which call it was allocated."
            )
        elif not self.sites and not self.problems:
            yield "Leak: nothing was seen to stay: no tensor, no Python object, and no counter grew."
        if self.growth:
            counted = ", ".join(f"{name} {_signed(bytes_)}" for name, bytes_ in self.growth.items())
            yield f"Memory per run, by counter: {counted}"
        for name, problem in self.problems.items():
            yield f"{name} were not looked at: {problem}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "sites": [asdict(each) for each in self.sites],
            "owners": [asdict(each) for each in self.owners],
            "growth": dict(self.growth),
            "problems": dict(self.problems),
        }


def find_leak(loaded: LoadedModel, inputs: Tensors) -> LeakExplanation:
    """Run a model repeatedly, and find what stays.

    Args:
        loaded: The model on its device.
        inputs: Arguments of `forward`.
    """
    for _ in range(_WARM_UP):
        loaded.forward(inputs)
    growth = _growth(loaded, inputs)
    sites: list[LeakSite] = []
    owners: list[LeakSite] = []
    problems = {}
    try:
        sites += _tensor_sites(loaded, inputs)
    except Exception as error:  # whatever a runtime may not do while it is watched
        problems["tensors"] = error_line(error)
    try:
        objects, owners = _object_sites(loaded, inputs)
        # The object that stands for a tensor in Python was made by the same line.
        sites += [each for each in objects if each.place not in {tensor.place for tensor in sites}]
    except Exception as error:
        problems["Python objects"] = error_line(error)
    sites.sort(key=lambda each: -each.bytes_per_run)
    largest = sites[0].bytes_per_run if sites else 0.0
    shown = tuple(each for each in sites if each.bytes_per_run >= _LEAST_SHARE * largest)
    return LeakExplanation(shown, tuple(owners), growth, problems)


def _growth(loaded: LoadedModel, inputs: Tensors) -> dict[str, float]:
    """Return by how many bytes each counter grows per run: the least of three rounds, as all else is noise."""

    def count() -> dict[str, int]:
        gc.collect()
        usage = loaded.memory()
        more: dict[str, int] = getattr(loaded, "memory_counters", dict)()
        return {str(usage["source"]): int(usage["current_bytes"]), **more}

    rounds = []
    for _ in range(3):
        before = count()
        for _ in range(_RUNS):
            loaded.forward(inputs)
        after = count()
        rounds.append({name: (after[name] - before[name]) / _RUNS for name in before if name in after})
    return {name: min(each[name] for each in rounds) for name in rounds[0] if all(name in each for each in rounds)}


@dataclass
class _Made:
    """What an operator made.

    Attributes:
        run: In which run.
        storage: Its memory, which lives as long as a tensor with this memory does.
        frames: The lines that asked for it, the innermost first.
        tensors: The tensors with this memory.
    """

    run: int
    storage: StorageWeakRef
    nbytes: int
    operator: str
    shape: tuple[int, ...]
    module: str
    frames: tuple[Frame, ...]
    tensors: list[weakref.ref[torch.Tensor]]


class _Outputs(TorchDispatchMode):  # type: ignore[misc]
    """Notes the outputs of all operators whose memory is new."""

    def __init__(self) -> None:
        super().__init__()
        self.run = 0
        self.made: dict[int, _Made] = {}
        self.running: list[str] = []
        self._others: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in tensors_in((args, kwargs)):
            if (storage := _storage(given)) is not None and storage._cdata not in self.made:
                self._others.setdefault(storage._cdata, StorageWeakRef(storage))  # weights and inputs
        output = func(*args, **kwargs)
        for tensor in tensors_in(output):
            storage = _storage(tensor)
            if storage is None or storage._cdata in self._others:
                continue
            if storage._cdata not in self.made:
                self.made[storage._cdata] = _Made(
                    self.run,
                    StorageWeakRef(storage),
                    storage.nbytes(),
                    str(func),
                    tuple(tensor.shape),
                    self.running[-1] if self.running else "",
                    _user_frames(_frames_from(sys._getframe(1))),
                    [],
                )
            self.made[storage._cdata].tensors.append(weakref.ref(tensor))
        return output

    def forget_freed(self) -> None:
        """Forget what is not alive any more. Until then its memory's number is not given to other memory."""
        gc.collect()
        self.made = {key: each for key, each in self.made.items() if not each.storage.expired()}
        self._others = {key: each for key, each in self._others.items() if not each.expired()}


def _storage(tensor: torch.Tensor) -> Any:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse tensors and wrappers have none
        return None


def _tensor_sites(loaded: LoadedModel, inputs: Tensors) -> list[LeakSite]:
    model = loaded.pipeline_model()
    modules = dict(model.named_modules()) if isinstance(model, torch.nn.Module) else {}
    outputs = _Outputs()
    with ExitStack() as hooks:
        for name, module in modules.items():

            def enter(*_: Any, name: str = name) -> None:
                outputs.running.append(name)

            def leave(*_: Any) -> None:
                outputs.running.pop()

            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        for outputs.run in range(_RUNS + 1):
            outputs.running.clear()
            with outputs:
                loaded.forward(inputs)
            outputs.forget_freed()
    by_site: dict[tuple[Any, ...], list[_Made]] = defaultdict(list)
    for each in outputs.made.values():
        if each.run < _RUNS:  # what the last run made may stay until the next one
            by_site[each.frames[:1], each.operator, each.shape, each.module].append(each)
    sites = []
    for left in by_site.values():
        if len({each.run for each in left}) < _RUNS:  # kept once, or replaced by each run
            continue
        first = left[0]
        file, line, function = first.frames[0] if first.frames else ("", 0, "")
        kind = type(modules[first.module]).__name__ if first.module in modules else ""
        site = LeakSite(
            file,
            line,
            function,
            _callers(first.frames),
            sum(each.nbytes for each in left) / _RUNS,
            len(left) / _RUNS,
            first.operator,
            first.shape,
            first.module,
            kind,
        )
        sites.append((site, left))
    sites.sort(key=lambda pair: -pair[0].bytes_per_run)
    was_frozen = gc.get_freeze_count()
    gc.unfreeze()  # the collector does not look at what was frozen, such as a module's globals
    ours = [outputs.made, *outputs.made.values(), *(left for _, left in sites)]
    try:
        return [
            replace(site, holder=_holder(left, modules, ours)) if number < _SHOWN_SITES else site
            for number, (site, left) in enumerate(sites)
        ]
    finally:
        if was_frozen:
            gc.freeze()


def _object_sites(loaded: LoadedModel, inputs: Tensors) -> tuple[list[LeakSite], list[LeakSite]]:
    """Return lines that leave much behind, and lines that leave as many small objects behind with each run."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(_FRAMES)
    try:
        snapshots = []
        for runs in (_WARM_UP, _RUNS, _RUNS):
            for _ in range(runs):
                loaded.forward(inputs)
            gc.collect()
            snapshots.append(_by_site(tracemalloc.take_snapshot()))
    finally:
        if not was_tracing:
            tracemalloc.stop()
    sites, owners = [], []
    for frames in snapshots[-1]:
        sizes, counts = zip(*(each.get(frames, (0, 0)) for each in snapshots), strict=True)
        grown, more = ([after - before for before, after in pairwise(each)] for each in (sizes, counts))
        (file, line, _), *_ = frames
        runs = 2 * _RUNS
        site = LeakSite(file, line, "", _callers(frames), sum(grown) / runs, sum(more) / runs)
        if min(grown) >= _RUNS * _LEAST_OBJECTS:
            sites.append(site)
        elif more[0] == more[1] > 0 and not more[0] % _RUNS and min(grown) > 0:
            owners.append(site)
    return sites, sorted(owners, key=lambda each: -each.bytes_per_run)


def _by_site(snapshot: tracemalloc.Snapshot) -> dict[tuple[Frame, ...], tuple[int, int]]:
    """Return bytes and blocks by the lines of the user's or the model's code that allocated them."""
    found: dict[tuple[Frame, ...], list[int]] = defaultdict(lambda: [0, 0])
    for statistic in snapshot.statistics("traceback"):
        frames = [(frame.filename, frame.lineno, "") for frame in reversed(statistic.traceback)]
        if frames[0][0] == __file__ or frames[0][0].startswith(_HELPERS):
            continue
        total = found[_user_frames(frames)]
        total[0] += statistic.size
        total[1] += statistic.count
    return {frames: (size, count) for frames, (size, count) in found.items() if frames}


def _frames_from(frame: types.FrameType | None) -> Iterator[Frame]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back


def _user_frames(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """Return the frames of the model's and the user's code, the innermost first; of our own where there are none.

    What called this module is not looked at.
    """
    inner: list[Frame] = []
    for frame in frames:
        if frame[0] == __file__:
            break
        if not frame[0].startswith("<"):
            inner.append(frame)
    skipped = (f"{_TORCH}/", f"{_PACKAGE}/")
    others = [each for each in inner if not each[0].startswith(skipped) and not _is_standard(each[0])]
    return tuple((others or [each for each in inner if each[0].startswith(_PACKAGE)] or inner)[: _SHOWN_FRAMES + 1])


def _is_standard(file: str) -> bool:
    return file.startswith(_STANDARD) and "site-packages" not in file


def _callers(frames: tuple[Frame, ...]) -> tuple[str, ...]:
    return tuple(f"{file}:{line}" for file, line, _ in frames[1 : 1 + _SHOWN_FRAMES])


def _holder(left: list[_Made], modules: Mapping[str, Any], ours: list[Any]) -> str:
    """Return what holds a tensor that was left behind: an attribute of a module, a global or a closure."""
    tensor = next((found for each in left for ref in each.tensors if (found := ref()) is not None), None)
    if tensor is None:
        return ""
    names = {id(vars(module)): name for name, module in modules.items()}
    hidden = {id(each) for each in ours} | {id(modules), id(left)}
    front: list[Any] = [tensor]
    path: dict[int, str] = {id(tensor): ""}
    for _ in range(_HOLDERS):
        following: list[Any] = []
        for referrer in gc.get_referrers(*front):
            if id(referrer) in path or id(referrer) in hidden or isinstance(referrer, types.FrameType):
                continue
            if referrer is front or referrer is following:
                continue
            held = next((each for each in front if _key_of(referrer, each) is not None), None)
            if held is None:
                held = next((each for each in front if any(each is got for got in gc.get_referents(referrer))), None)
            if held is None:
                continue
            about = path[id(held)] or _described(held)
            key = _key_of(referrer, held)
            if id(referrer) in names or isinstance(referrer, torch.nn.Module):
                module = referrer if isinstance(referrer, torch.nn.Module) else None
                name = names.get(id(vars(module))) if module is not None else names[id(referrer)]
                return _with_about(f"{name or 'the model'}.{key}" if key else f"{name}", about)
            if isinstance(referrer, dict) and "__builtins__" in referrer:  # the globals of a module of Python
                return _with_about(f"{referrer.get('__name__', '')}.{key}", about)
            if isinstance(referrer, types.FunctionType):
                code = referrer.__code__
                return _with_about(f"{referrer.__qualname__} ({code.co_filename}:{code.co_firstlineno})", about)
            path[id(referrer)] = about or _described(referrer)
            following.append(referrer)
        if not following:
            break
        front = following
    return next((text for text in path.values() if text), "")


def _key_of(container: Any, value: Any) -> str | None:
    """Return the name under which a dictionary or an object holds a value; `None` where it has none."""
    attributes = container if isinstance(container, dict) else getattr(container, "__dict__", None)
    if not isinstance(attributes, dict):
        return None
    return next((str(name) for name, each in list(attributes.items()) if each is value), None)


def _described(value: Any) -> str:
    if isinstance(value, (list, tuple, set, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return "" if isinstance(value, (torch.Tensor, types.CellType)) else f"a {type(value).__qualname__}"


def _with_about(name: str, about: str) -> str:
    return f"{name}, {about}" if about else name


def _signed(count: float) -> str:
    return f"{'-' if count < 0 else '+'}{format_bytes(round(abs(count)))}"
