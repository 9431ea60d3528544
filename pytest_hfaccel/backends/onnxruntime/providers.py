"""The execution providers of ONNX Runtime in one table: names, packages, and how they are opened.

Imports no runtime, so that the machine can be searched for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_hfaccel.core.spec import Device

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """A row of the table.

    Attributes:
        target: The target of its device, as in `onnxruntime:CUDA`.
        name: ONNX Runtime's name of it.
        package: The distribution that has it: a plugin, or a build of ONNX Runtime.
        plugin: The module of a plugin, which is installed beside ONNX Runtime; empty where a build of its own has the
            provider.
        libraries: Files of that build, or of the plugin, by one of which the provider is recognised.
        options: What it is opened with, so that it computes in fp32 where a model is in fp32.
        number_option: The option that takes what follows the dot in a target (`CUDA.1`); empty where none does.
        compiles: It takes whole parts of the graph and compiles them. Which operators it makes of them, and their
            precision, cannot be read back.
        static_shapes_only: It takes no graph with an open axis.
    """

    target: str
    name: str
    package: str = "onnxruntime"
    plugin: str = ""
    libraries: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    number_option: str = ""
    compiles: bool = False
    static_shapes_only: bool = False


# CPU and WebGPU have been run by this project. The others are set as their makers document them.
_TABLE = (
    Provider("CPU", CPU),
    Provider(
        "CUDA",
        "CUDAExecutionProvider",
        package="onnxruntime-gpu",
        libraries=("*onnxruntime_providers_cuda.*",),
        options={"use_tf32": "0"},  # TF32 is on unless it is switched off
        number_option="device_id",
    ),
    # The provider named after ROCm is gone since ONNX Runtime 1.23; AMD's other one runs on ROCm, too.
    Provider(
        "ROCm",
        "MIGraphXExecutionProvider",
        package="onnxruntime-migraphx",
        libraries=("*onnxruntime_providers_migraphx.*",),
        number_option="device_id",
        compiles=True,
    ),
    Provider(
        "DirectML",
        "DmlExecutionProvider",
        package="onnxruntime-directml",
        libraries=("DirectML.dll",),
        number_option="device_id",
    ),
    # The other format, NeuralNetwork, computes in fp16 on a GPU or the Neural Engine.
    Provider("CoreML", "CoreMLExecutionProvider", options={"ModelFormat": "MLProgram"}, compiles=True),
    Provider(
        "OpenVINO",
        "OpenVINOExecutionProvider",
        package="onnxruntime-ep-openvino",
        plugin="onnxruntime_ep_openvino",
        libraries=("*onnxruntime_providers_openvino*",),
        options={"device_type": "CPU", "precision": "FP32"},
        number_option="device_type",
        compiles=True,
    ),
    Provider(
        "QNN",
        "QNNExecutionProvider",
        package="onnxruntime-qnn",
        plugin="onnxruntime_qnn",
        libraries=("*onnxruntime_providers_qnn.*", "*/*onnxruntime_providers_qnn.*"),
        options={"enable_htp_fp16_precision": "0"},  # the HTP would compute graphs in fp32 at fp16
        compiles=True,
        static_shapes_only=True,
    ),
    Provider(
        "WebGPU",
        "WebGpuExecutionProvider",
        package="onnxruntime-ep-webgpu",
        plugin="onnxruntime_ep_webgpu",
        libraries=("*onnxruntime_providers_webgpu.*",),
    ),
)

PROVIDERS = {provider.target: provider for provider in _TABLE}
"""By target, in the order in which devices are listed."""


def provider_of(device: Device) -> Provider:
    """Return the provider that a device is."""
    return PROVIDERS[device.target.partition(".")[0]]


def options_of(device: Device) -> dict[str, str]:
    """Return the options its provider is opened with."""
    provider = provider_of(device)
    number = device.target.partition(".")[2]
    chosen = {provider.number_option: number} if number and provider.number_option else {}
    return {**provider.options, **chosen}


def how_to_install(provider: Provider) -> str:
    """Return the command that installs a provider."""
    if provider.plugin or provider.package == "onnxruntime":
        return f"pip install {provider.package}"
    return f"pip uninstall --yes onnxruntime && pip install {provider.package}"


def target_of(provider_name: str) -> str:
    """Return the target of ONNX Runtime's name of a provider; the name without its ending for one not in the table."""
    known = {provider.name: provider.target for provider in _TABLE}
    return known.get(provider_name, provider_name.removesuffix("ExecutionProvider"))
