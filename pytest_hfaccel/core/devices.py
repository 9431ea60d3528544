"""The kinds of device, in one table: how they are named, what runs models on them, what they can do.

A third-party backend adds its kind with `register_kind`; everything else here is constant. Imports nothing of ours, so
that every layer may ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from pytest_hfaccel.core.errors import ConfigError


@dataclass(frozen=True)
class Traits:
    """What a backend can do; decided per kind, before a model is loaded.

    Attributes:
        exported: It runs a converted graph. False where it runs transformers' own code.
        torch_module: `LoadedModel.pipeline_model()` is the transformers model itself, a `torch.nn.Module`, so that it
            can be trained, compiled, and given another attention implementation; its weights can be read and edited.
        exact: Wildcards over targets; these devices sum in a fixed order, so that two runs agree to the last bit.
        host_memory: Wildcards over targets; these devices use the memory of the host.
        accelerator: A plain run prefers it to the CPU.
        default_model_only: `--all-models --all-hardware` runs only the default model of each model class on it, because
            it takes long to bring a model there, or to run it. Where it is named by `--hf-device`, all run.
        needs_checkpoint: False where `load` is called without a checkpoint, and none is built.
        fixes_threads: A model keeps the number of threads that torch had when it was compiled.
        most_idle: How many models that nobody uses stay loaded; `None`: as many as the memory budget allows. A budget
            counts weights, and does not see what else a model takes: in a browser a process of its own.
    """

    exported: bool = True
    torch_module: bool = False
    exact: tuple[str, ...] = ()
    host_memory: tuple[str, ...] = ()
    accelerator: bool = False
    default_model_only: bool = False
    needs_checkpoint: bool = True
    fixes_threads: bool = False
    most_idle: int | None = None

    def is_exact(self, target: str) -> bool:
        """Whether two runs on this target agree to the last bit."""
        return any(fnmatchcase(target, pattern) for pattern in self.exact)

    def uses_host_memory(self, target: str) -> bool:
        """Whether this target uses the memory of the host."""
        return any(fnmatchcase(target, pattern) for pattern in self.host_memory)


@dataclass(frozen=True)
class TorchDevice:
    """How torch reaches a kind of device: through the module `torch.<module>`, of whose functions this has the names.

    Functions are called with a `torch.device`; those of a kind of which there is one device, without. An empty name
    says that the module has no such function.

    Attributes:
        module: Name of the module, which is `torch.device.type`, too; torch's ROCm builds call AMD's GPUs `cuda`.
        package: Package whose import adds the module to torch, e.g. `torch_npu`; empty where torch has it itself.
        seed: Takes a number and seeds the generators of all devices.
        synchronize: Waits for what a device computes.
        empty_cache: Gives memory that nothing uses back to the device. Called without arguments.
        memory_allocated: Bytes in use.
        max_memory_allocated: The most bytes in use since `reset_peak_memory_stats`.
        reset_peak_memory_stats: Starts a new peak.
        memory_after_run: Bytes that the driver holds; the peak is read from it after each run where the module keeps
            none.
        mem_get_info: Free and total bytes.
        dtypes: The dtypes it computes at.
        visible_devices: Environment variables that hide and reorder devices, outermost first.
        device_files: Wildcard for the files that the driver makes, one per device, e.g. `/dev/davinci[0-9]*`.
    """

    module: str
    package: str = ""
    seed: str = "manual_seed_all"
    synchronize: str = "synchronize"
    empty_cache: str = "empty_cache"
    memory_allocated: str = "memory_allocated"
    max_memory_allocated: str = "max_memory_allocated"
    reset_peak_memory_stats: str = "reset_peak_memory_stats"
    memory_after_run: str = ""
    mem_get_info: str = "mem_get_info"
    dtypes: tuple[str, ...] = ("fp64", "fp32", "bf16", "fp16", "int8")
    visible_devices: tuple[str, ...] = ()
    device_files: str = ""


@dataclass(frozen=True)
class DeviceKind:
    """A row of the table.

    Attributes:
        name: What stands before the colon of a device id.
        is_indexed: Its devices are numbered, as in `cuda:1`.
        is_single: There is one, which takes no target.
        default_target: The target of a device that is named by its kind alone.
        targets: The targets there are, as they are written, where the kind has a fixed set; each may be followed by a
            dot and what the runtime calls one of several (`CUDA.1`). Any target where it is empty.
        torch: How torch reaches its devices; `None` where torch does not compute on them.
        backend: Folder in `pytest_hfaccel.backends`; empty where none runs models on it yet.
        is_searched: Whether the machine is searched for its devices; others exist only by name.
        parallel: How models are split, as `parallel_mode` returns it; empty where they are whole.
        compiler: One of `COMPILERS` that models are compiled with; empty where they run as they are.
        traits: What its backend can do.
    """

    name: str
    is_indexed: bool = False
    is_single: bool = False
    default_target: str = ""
    targets: tuple[str, ...] = ()
    torch: TorchDevice | None = None
    backend: str = ""
    is_searched: bool = True
    parallel: str = ""
    compiler: str = ""
    traits: Traits = field(default_factory=Traits)


_IDLE_PAGES = 2
"""The page of a tiny model takes over 100 MiB. Two, so that tests that go to and fro between models load each once."""

_EAGER = Traits(exported=False, torch_module=True, accelerator=True)


def torch_kind(name: str, **description: Any) -> DeviceKind:
    """Return a kind of numbered devices that torch computes on.

    Args:
        name: What users write before the colon: `npu` for `npu:0`.
        **description: The fields of `TorchDevice`; `module` is `name` if it is not given.

    Raises:
        ConfigError: A field that there is not, or a value that is not allowed.
    """
    known = [each.name for each in fields(TorchDevice)]
    for key, value in description.items():
        if key not in known:
            raise ConfigError(f"device {name!r}: {key!r} is not a key here. Allowed: {', '.join(known)}.")
        is_list = key in ("dtypes", "visible_devices")
        if not (isinstance(value, tuple | list) if is_list else isinstance(value, str)):
            raise ConfigError(f"device {name!r}: {key}: {value!r} is not {'a list of names' if is_list else 'text'}.")
    description = {"module": name, **description}
    for key in ("dtypes", "visible_devices"):
        if key in description:
            description[key] = tuple(description[key])
    allowed = TorchDevice("").dtypes
    for dtype in description.get("dtypes", ()):
        if dtype not in allowed:
            raise ConfigError(f"device {name!r}: {dtype!r} is not a dtype. Allowed: {', '.join(allowed)}.")
    torch = TorchDevice(**description)
    return DeviceKind(name, is_indexed=True, default_target="0", torch=torch, backend="torch", traits=_EAGER)


# In the order in which they are listed.
_TABLE = (
    DeviceKind(
        "cpu",
        is_single=True,
        torch=TorchDevice("cpu"),
        backend="torch",
        traits=Traits(exported=False, torch_module=True, exact=("*",), host_memory=("*",)),
    ),
    torch_kind("cuda", visible_devices=("CUDA_VISIBLE_DEVICES",)),
    torch_kind(
        "rocm",
        module="cuda",
        visible_devices=("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
    ),
    DeviceKind(
        "mps",
        is_single=True,
        torch=TorchDevice(
            "mps",
            seed="manual_seed",
            memory_allocated="current_allocated_memory",
            max_memory_allocated="",
            reset_peak_memory_stats="",
            memory_after_run="driver_allocated_memory",
            mem_get_info="",
        ),
        backend="torch",
        traits=_EAGER,
    ),
    torch_kind("xpu"),
    DeviceKind(
        "openvino",
        default_target="CPU",
        backend="openvino",
        traits=Traits(exact=("CPU*",), host_memory=("CPU",), fixes_threads=True),
    ),
    DeviceKind(
        "onnxruntime",
        default_target="CPU",
        targets=("CPU", "CUDA", "ROCm", "DirectML", "CoreML", "OpenVINO", "QNN", "WebGPU"),
        backend="onnxruntime",
        traits=Traits(exact=("CPU",), host_memory=("CPU", "OpenVINO"), fixes_threads=True),
    ),
    DeviceKind(
        "executorch",
        default_target="XNNPACK",
        targets=("XNNPACK",),
        backend="executorch",
        traits=Traits(exact=("*",), host_memory=("*",), default_model_only=True),
    ),
    DeviceKind("webgpu", backend="browser", traits=Traits(default_model_only=True, most_idle=_IDLE_PAGES)),
    DeviceKind(
        "webnn",
        backend="browser",
        traits=Traits(host_memory=("*",), default_model_only=True, most_idle=_IDLE_PAGES),
    ),
    DeviceKind(
        "wasm",
        backend="browser",
        traits=Traits(exact=("*",), host_memory=("*",), default_model_only=True, most_idle=_IDLE_PAGES),
    ),
    DeviceKind(
        "fake",
        is_indexed=True,
        default_target="0",
        backend="fake",
        is_searched=False,
        traits=Traits(exported=False, host_memory=("*",), needs_checkpoint=False),
    ),
)

BUILT_IN = {kind.name: kind for kind in _TABLE}
"""The kinds of device that a user can name without a third-party backend."""

_KINDS = dict(BUILT_IN)

BEST_FIRST = (
    "cuda",
    "rocm",
    "xpu",
    "mps",
    "openvino:GPU",
    "onnxruntime:CUDA",
    "onnxruntime:ROCm",
    "onnxruntime:DirectML",
    "cpu",
    "openvino:NPU",
    "openvino:CPU",
    "onnxruntime:CPU",
    "executorch:XNNPACK",
)
"""Devices in the order in which a plain run prefers them.

GPUs that torch computes on come first: OpenVINO and ONNX Runtime must convert a model. OpenVINO's NPU comes after the
CPU because it takes static shapes only, which most models do not have. What runs in a browser is chosen only by name.
"""

TORCH_KINDS = tuple(kind.name for kind in _TABLE if kind.traits.torch_module)
"""The built-in kinds on which transformers' own code runs."""

GPU_KINDS = tuple(kind.name for kind in _TABLE if kind.traits.torch_module and kind.is_indexed)
"""The kinds of which a machine may have several with memory of their own, so that a model can be split over them."""

BROWSER_KINDS = ("webgpu", "webnn", "wasm")

ONNX_KINDS = ("onnxruntime", *BROWSER_KINDS)
"""The kinds that run ONNX graphs."""

_RUNTIME_KINDS = ("onnxruntime", "executorch")

HARDWARE_KINDS = tuple(
    dict.fromkeys(
        [
            *(kind for kind, _, _ in (name.partition(":") for name in BEST_FIRST) if kind not in _RUNTIME_KINDS),
            "webgpu",
            "webnn",
            "qualcomm",
        ]
    )
)
"""The kinds of hardware that advice is given for, best first; nothing runs on `qualcomm` yet.

`onnxruntime` and `executorch` are not among them: they are other runtimes on the same hardware.
"""


TENSOR_PARALLEL = "tp"
AUTO = "auto"
OFFLOAD = "offload"

PARALLEL_MODES = f"{TENSOR_PARALLEL}=<2 or more>, {AUTO}, {OFFLOAD}"
"""How a model can be split over several devices, as messages list it."""


def parallel_mode(text: str) -> str:
    """Return the plain spelling of a way to split a model: `tp=2`, `auto` or `offload`; empty for any other text."""
    name, _, count = text.strip().lower().partition("=")
    if name == TENSOR_PARALLEL:
        return f"{TENSOR_PARALLEL}={int(count)}" if count.isdecimal() and int(count) > 1 else ""
    return name if name in (AUTO, OFFLOAD) and not count else ""


COMPILERS = ("inductor", "openvino")
"""The backends of `torch.compile` that a device of torch may have after a plus sign: `cpu+inductor`."""


def kind_named(name: str) -> DeviceKind:
    """Return the row of a kind; one with default traits for a kind that nobody has registered.

    That of `cuda+inductor` is the row of `cuda` with compiled models, that of `cuda+tp=2` with split ones; such devices
    are used only when they are named.
    """
    base, _, suffix = name.partition("+")
    row = _KINDS.get(base) or DeviceKind(base)
    if not suffix:
        return row
    if suffix in COMPILERS:
        traits = replace(row.traits, accelerator=False)
        return replace(row, name=name, is_searched=False, compiler=suffix, traits=traits)
    # Its weights are elsewhere: in other processes, or fetched when they are needed.
    traits = replace(row.traits, accelerator=False, torch_module=False)
    return replace(row, name=name, is_searched=False, parallel=suffix, traits=traits)


def kind_of(device: str) -> str:
    """Return the kind in a device id: `cuda` for `cuda:1`, `cuda+inductor` for `cuda:1+inductor`."""
    base, plus, suffix = device.partition("+")
    return base.partition(":")[0] + plus + suffix


def registered_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, those of third-party backends last."""
    return tuple(_KINDS)


def register_kind(kind: DeviceKind) -> None:
    """Add the kind of a third-party backend; one of the same name from an earlier run in this process is replaced.

    Raises:
        ValueError: It has the name of a built-in kind.
    """
    if kind.name in BUILT_IN:
        raise ValueError(f"{kind.name!r} is a built-in kind of device")
    _KINDS[kind.name] = kind


def unregister_kind(name: str) -> None:
    """Forget the kind of a third-party backend or of a description, if there is one of that name."""
    if name not in BUILT_IN:
        _KINDS.pop(name, None)


def described_kinds() -> tuple[DeviceKind, ...]:
    """Return the kinds that torch computes on and that registry files or entry points describe."""
    return tuple(kind for kind in _KINDS.values() if kind.torch is not None and kind.name not in BUILT_IN)


def torch_device_of(torch_type: str) -> DeviceKind:
    """Return the first kind whose devices torch calls so.

    Args:
        torch_type: A `torch.device.type`.
    """
    default = DeviceKind(torch_type, torch=TorchDevice(torch_type))
    return next((kind for kind in _KINDS.values() if kind.torch and kind.torch.module == torch_type), default)


def rank_of(kind: str, target: str) -> int:
    """Return a device's place in the order of preference, best first; accelerators of third parties precede the CPU."""
    for rank, name in enumerate(BEST_FIRST):
        best_kind, _, best_target = name.partition(":")
        if kind == best_kind and target.startswith(best_target):
            return 2 * rank
    return 2 * BEST_FIRST.index("cpu") - 1 if kind_named(kind).traits.accelerator else 2 * len(BEST_FIRST)


def require_kinds(names: Iterable[str], place: str) -> list[str]:
    """Return the names as a list.

    Args:
        names: Kinds of hardware.
        place: The argument or option they come from, for the message.

    Raises:
        ConfigError: One of them is not in `HARDWARE_KINDS`.
    """
    kinds = list(names)
    unknown = ", ".join(repr(name) for name in kinds if name not in HARDWARE_KINDS)
    if unknown:
        raise ConfigError(
            f"{place}: {unknown} is not a kind of hardware. Allowed: {', '.join(HARDWARE_KINDS)}.",
            hint="A device of a kind is chosen by its index (preferred_index), not by its name.",
        )
    return kinds
