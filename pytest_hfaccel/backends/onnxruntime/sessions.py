"""Sessions of ONNX Runtime: opened on one provider, with the provider of each node read back."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch

from pytest_hfaccel.backends.exported.onnx_programs import constant_sizes, file_of, serialized
from pytest_hfaccel.backends.onnxruntime.providers import CPU, PROVIDERS, how_to_install, options_of, provider_of
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.core.spec import Device

SERIALIZABLE_BYTES = int(1.5 * 2**30)
"""Weights that fit into one ONNX file with room: protobuf takes up to 2 GiB."""

_FATAL_ONLY = 4
"""Level of log messages. ONNX Runtime prints what it raises as well."""

_NO_FALLBACK = "session.disable_cpu_ep_fallback"
_RECORDS_PROVIDERS = "session.record_ep_graph_assignment_info"

OPTIONS = {
    # Threads that wait for the next run take the cores of other workers.
    "session.force_spinning_stop": "1",
    # Both are ONNX Runtime's defaults, named so that a change of them does not go unnoticed: they change results.
    "optimization.enable_gelu_approximation": "0",
    "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
    _RECORDS_PROVIDERS: "1",
}


@lru_cache(maxsize=1)
def _register_plugins() -> None:
    """Have ONNX Runtime load the providers that are installed beside it. To do that twice ends the process."""
    for provider in PROVIDERS.values():
        if provider.plugin and find_spec(provider.plugin) is not None:
            plugin = import_module(provider.plugin)
            # A plugin that cannot be loaded is as absent as one that is not installed; `require_device` says so.
            with suppress(RuntimeError), errors_as_runtime_errors():
                ort.register_execution_provider_library(provider.name, plugin.get_library_path())


def require_device(device: Device) -> None:
    """Make sure that the installed ONNX Runtime has a device's provider.

    Raises:
        BackendUnavailable: It has not; the message names those it has.
    """
    ort.set_default_logger_severity(_FATAL_ONLY)
    _register_plugins()
    provider = provider_of(device)
    available = ort.get_available_providers()
    if provider.name not in available:
        raise BackendUnavailable(
            f"{device}: this ONNX Runtime ({ort.__version__}) has no {provider.name}. It has: {', '.join(available)}.",
            stage="load",
            hint=f"It is installed by: {how_to_install(provider)}. A plugin also needs a device that it supports.",
        )


def hardware_of(device: Device) -> dict[str, str]:
    """Return what ONNX Runtime says about the hardware behind a provider: `type` (CPU, GPU, NPU), `vendor`, `version`.

    Empty for providers that say nothing, among them all that are no plugins.
    """
    name = provider_of(device).name
    for each in ort.get_ep_devices():
        if each.ep_name == name:
            facts = {
                "type": each.device.type.name,
                "vendor": each.device.vendor,
                "version": each.ep_metadata.get("version", ""),
            }
            return {key: value for key, value in facts.items() if value}
    return {}


def open_session(
    model: bytes | str,
    device: Device,
    *,
    may_use_cpu: bool = True,
    optimized: Path | None = None,
    optimise: bool = True,
) -> ort.InferenceSession:
    """Open a session on a device's provider, with as many threads as torch has in this process.

    Args:
        model: An ONNX file, or its content.
        device: The device.
        may_use_cpu: Whether nodes that the provider does not take may go to the CPU.
        optimized: Where to write the graph as it will run.
        optimise: Whether it may change the graph at all.

    Raises:
        BackendUnavailable: ONNX Runtime left the provider out: its libraries or its device are missing.
        RuntimeError: It cannot compile the model.
    """
    provider = provider_of(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    for key, value in OPTIONS.items():
        options.add_session_config_entry(key, value)
    if not may_use_cpu and provider.name != CPU:
        options.add_session_config_entry(_NO_FALLBACK, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    providers = [(provider.name, options_of(device))]
    with errors_as_runtime_errors(), warnings.catch_warnings():
        # Asked for a provider that it has not, ONNX Runtime warns and takes the CPU.
        warnings.simplefilter("ignore")
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if provider.name not in session.get_providers():
        raise BackendUnavailable(
            f"{device}: ONNX Runtime left {provider.name} out without saying so and would run on "
            f"{', '.join(session.get_providers())}.",
            stage="compile",
            hint="Its libraries or its device are missing: open a session with log_severity_level=1 to see which.",
        )
    return session


@contextmanager
def errors_as_runtime_errors() -> Iterator[None]:
    """Raise as `RuntimeError` what ONNX Runtime raises: its exceptions have no class in common but `Exception`."""
    try:
        yield
    except (RuntimeError, MemoryError):
        raise
    except Exception as error:
        raise RuntimeError(str(error)) from error


@dataclass(frozen=True)
class Node:
    """A node of a graph as it was given to a provider.

    Attributes:
        provider: ONNX Runtime's name of the provider.
        operator: E.g. `MatMul`.
    """

    provider: str
    operator: str


class NodesByProvider:
    """Which provider runs how many nodes of a session.

    Args:
        nodes: Each node.

    Attributes:
        counts: Number of nodes by provider, the most first.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = list(nodes)
        self.counts = dict(Counter(node.provider for node in self._nodes).most_common())

    def operators_on(self, provider: str) -> dict[str, int]:
        """Return the number of a provider's nodes by operator, the most first."""
        return dict(Counter(node.operator for node in self._nodes if node.provider == provider).most_common())


def nodes_by_provider(session: ort.InferenceSession) -> NodesByProvider:
    """Read back which provider runs each node."""
    parts = session.get_provider_graph_assignment_info()
    return NodesByProvider(Node(part.ep_name, node.op_type) for part in parts for node in part.get_nodes())


@contextmanager
def openable(program: Any, architecture: str) -> Iterator[bytes | str]:
    """Give a graph in the form in which a session is opened with it: its file, its content, or a file for the block.

    Raises:
        LoadError: The graph cannot be written.
    """
    path = file_of(program)
    if path is not None:
        yield str(path)
    elif sum(constant_sizes(program).values()) < SERIALIZABLE_BYTES:
        yield serialized(program)
    else:
        import onnx_ir

        with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
            file = Path(folder) / "model.onnx"
            try:
                onnx_ir.save(program, str(file), external_data="model.onnx.data")
            except OSError as error:
                raise LoadError(f"{architecture}: its graph cannot be written: {error}", stage="compile") from error
            yield str(file)
