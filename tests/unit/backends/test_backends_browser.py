"""wasm, webgpu and webnn: what needs no browser first, then a real one, driven as a run drives it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.backends.browser.installed import find_browser, find_installation, probe_browsers
from pytest_hfaccel.backends.browser.server import Server, pack, unpack
from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.errors import BackendUnavailable, DeviceCrashed, DeviceTimeout, LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.registry.auto_classes import match_pairs
from tests.unit.backends.backend_sources import TINY, CountingSource, make_cell, tiny_checkpoint

onnx = pytest.importorskip("onnx", reason="onnx is an extra of this package")
onnx_ir = pytest.importorskip("onnx_ir")

_ABSENT = {presence.device.kind: presence.reason for presence in probe_browsers() if not presence.present}

needs_wasm = pytest.mark.skipif("wasm" in _ABSENT, reason=f"no wasm: {_ABSENT.get('wasm')}")
needs_webgpu = pytest.mark.skipif("webgpu" in _ABSENT, reason=f"no webgpu: {_ABSENT.get('webgpu')}")
needs_webnn = pytest.mark.skipif("webnn" in _ABSENT, reason=f"no webnn: {_ABSENT.get('webnn')}")


# Without a browser.


def test_frames_carry_tensors_of_any_type() -> None:
    arrays: dict[str, Any] = {
        "ids": np.arange(6).reshape(2, 3),
        "mask": np.array([True, False, True]),
        "empty": np.zeros((2, 0, 4), dtype=np.float32),
        "scalar": np.float32(2.5).reshape(()),
    }
    reply = unpack(b"".join(pack({"answer": 42}, arrays)))
    assert reply.header == {"answer": 42}
    assert list(reply.arrays) == list(arrays)
    for name, array in arrays.items():
        assert reply.arrays[name].dtype == array.dtype
        assert np.array_equal(reply.arrays[name], array)


@pytest.mark.current_transformers
@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"vendor": "google", "architecture": "swiftshader", "is_fallback": True}, True),
        ({"vendor": "google", "architecture": "swiftshader", "is_fallback": False}, True),
        ({"vendor": "mesa", "architecture": "", "description": "llvmpipe (LLVM 15.0.7, 256 bits)"}, True),
        ({"vendor": "microsoft", "architecture": "warp", "description": "Microsoft Basic Render Driver"}, True),
        ({"vendor": "nvidia", "architecture": "turing", "is_fallback": True}, True),
        ({"vendor": "", "architecture": "", "description": ""}, True),
        ({}, True),
        ({"vendor": "nvidia", "architecture": "hopper", "description": "NVIDIA H100", "is_fallback": False}, False),
        ({"vendor": "apple", "architecture": "metal-3", "is_fallback": None}, False),
    ],
)
def test_only_an_adapter_that_shows_itself_to_be_hardware_is(adapter: dict[str, Any], expected: bool) -> None:
    from pytest_hfaccel.backends.browser.backend import is_software

    assert is_software(adapter) is expected


def test_nodes_are_counted_by_provider() -> None:
    from pytest_hfaccel.backends.browser.runtime import nodes_in

    at = "[V:onnxruntime:, session_state.cc:1383 VerifyEachNodeIsAssignedToAnEp]  "
    webgpu = nodes_in(
        [
            f"{at}Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 86",
            f"{at}  MatMul (node_MatMul_3)",
            f"{at}Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
            f"{at}  Gather (node_Gather_1)",
            f"{at}  Gather (node_Gather_2)",
            f"{at}  Shape (node_Shape_1)",
        ]
    )
    assert webgpu.by_provider == {"webgpu": 86, "wasm": 3}
    assert webgpu.on_cpu == {"Gather": 2, "Shape": 1}
    assert webgpu.mostly_on == "webgpu"
    # WebNN merges what it takes into one node per part of the graph: the merged ones say nothing.
    webnn = nodes_in(
        [
            "WebNNExecutionProvider::GetCapability, number of partitions supported by WebNN: 3 "
            "number of nodes in the graph: 131 number of nodes supported by WebNN: 17",
            f"{at}Node(s) placed on [WebNNExecutionProvider]. Number of nodes: 16",
            f"{at}Node(s) placed on [CPUExecutionProvider]. Number of nodes: 99",
        ]
    )
    assert webnn.by_provider == {"webnn": 17, "wasm": 114}
    assert webnn.mostly_on == "wasm"
    assert nodes_in([f"{at}All nodes placed on [CPUExecutionProvider]. Number of nodes: 90"]).by_provider == {
        "wasm": 90
    }


def test_webgpu_is_not_called_real_before_its_adapter_was_asked() -> None:
    found = {presence.device.kind: presence.implementation for presence in probe_browsers() if presence.present}
    if "webgpu" not in found:
        pytest.skip(_ABSENT["webgpu"])
    assert found["webgpu"] == "unknown"
    assert found["wasm"] == "real"


def test_what_is_missing_is_said_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("playwright")
    monkeypatch.delenv("HFACCEL_NODE_MODULES", raising=False)
    monkeypatch.chdir(tmp_path)
    by_kind = {presence.device.kind: presence for presence in probe_browsers()}
    assert not any(presence.present for presence in by_kind.values())
    assert "npm install onnxruntime-web@" in by_kind["wasm"].reason
    package = tmp_path / "elsewhere" / "onnxruntime-web"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.30.0"}')
    monkeypatch.setenv("HFACCEL_NODE_MODULES", str(package.parent))
    monkeypatch.setenv("HFACCEL_BROWSER", str(tmp_path / "chrome"))
    with pytest.raises(BackendUnavailable, match=r"HFACCEL_BROWSER names .*chrome, which is no program"):
        find_installation(Device("wasm"))
    monkeypatch.delenv("HFACCEL_BROWSER")
    if sys.platform == "linux":
        with pytest.raises(BackendUnavailable, match="without WebNN") as raised:
            find_installation(Device("webnn"))
        assert "npm install --ignore-scripts @sparticuz/chromium" in str(raised.value)


@pytest.mark.skipif("webnn" in _ABSENT or sys.platform != "linux", reason="there is no Chromium of the npm package")
def test_the_chromium_of_the_npm_package_comes_after_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFACCEL_NODE_MODULES", str(find_installation(Device("webnn")).modules))
    monkeypatch.delenv("HFACCEL_BROWSER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser().name == "chromium"
    assert find_browser().parent.name == "@sparticuz"
    installed = tmp_path / "google-chrome"
    installed.touch(0o755)
    assert find_browser() == installed
    monkeypatch.delenv("HFACCEL_NODE_MODULES")
    monkeypatch.chdir(tmp_path)
    installed.unlink()
    with pytest.raises(BackendUnavailable, match="apt install chromium"):
        find_browser()


def test_a_node_modules_further_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_hfaccel.backends.browser.installed import find_modules

    monkeypatch.delenv("HFACCEL_NODE_MODULES", raising=False)
    (tmp_path / "node_modules").mkdir()
    deep = tmp_path / "tests" / "models"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert find_modules() == tmp_path / "node_modules"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "private").write_text("private")
    made = Server({"models": tmp_path / "shared"})
    yield made
    made.close()


def fetch(url: str, proxy: str = "") -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{proxy}"} if proxy else {}))
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_the_server_gives_what_is_shared_to_those_who_know_the_address(server: Server) -> None:
    assert fetch(f"{server.base}models/model.onnx") == (200, b"graph")
    assert fetch(f"{server.base}models/../private")[0] == 404
    assert fetch(f"{server.base}models/%2e%2e/private")[0] == 404
    assert fetch(f"http://{server.address}/models/model.onnx")[0] == 404
    assert server.base.startswith("http://127.0.0.1:")


def test_the_server_fetches_nothing_for_others(server: Server) -> None:
    assert fetch("http://example.com/weights", proxy=server.address)[0] == 403
    assert server.refused == ["http://example.com/weights"]


def program_of(graph: Any) -> Any:
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return onnx_ir.from_proto(model)


def product(rows: int | str = "rows", size: int = 8, weight: Any = None) -> Any:
    """A graph that multiplies by a matrix."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.eye(size, dtype=np.float32) if weight is None else weight
    return program_of(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", kind, [rows, size])],
            [helper.make_tensor_value_info("y", kind, [rows, weight.shape[1]])],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
    )


def endless() -> Any:
    """A graph that counts to its input."""
    helper, number, flag = onnx.helper, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Add", ["count", "count"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("at", number, []),
            helper.make_tensor_value_info("go_on", flag, []),
            helper.make_tensor_value_info("count", number, [1]),
        ],
        [helper.make_tensor_value_info("still", flag, []), helper.make_tensor_value_info("next", number, [1])],
    )
    return program_of(
        helper.make_graph(
            [helper.make_node("Loop", ["x", "", "zero"], ["y"], body=body)],
            "endless",
            [helper.make_tensor_value_info("x", number, [])],
            [helper.make_tensor_value_info("y", number, [1])],
            [onnx.numpy_helper.from_array(np.ones(1, dtype=np.int64), "zero")],
        )
    )


@pytest.mark.parametrize(
    ("device", "nbytes", "expected", "reason"),
    [
        ("webnn", 129 * 2**20, LoadError, "the constant w of Large has 129.0 MiB; .* up to 128.0 MiB"),
        ("wasm", 5 * 2**30, OutOfMemory, "has 5.0 GiB|have 5.0 GiB, and WebAssembly has a memory of 4.0 GiB"),
    ],
)
def test_what_a_browser_cannot_hold_is_refused_with_the_reason(
    device: str, nbytes: int, expected: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_hfaccel.backends.browser import runtime

    monkeypatch.setattr(runtime, "constant_sizes", lambda _: {"w": nbytes})
    made = runtime.BrowserRuntime(None, Device(device), 1, {})  # type: ignore[arg-type]  # none is needed to refuse
    with pytest.raises(expected, match=reason):
        made.compile(product(), Device(device), "fp32", "Large")


@pytest.mark.current_transformers
@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        ("wasm", "fp16", "graphs that are made for browsers are in fp32"),
        ("webgpu", "fp16", "no shader-f16 .SwiftShader"),
        ("webgpu", "bf16", "no bf16 arithmetic"),
    ],
)
def test_a_precision_that_would_not_be_computed_is_refused(device: str, dtype: str, reason: str) -> None:
    from pytest_hfaccel.backends.browser.backend import require_fp32

    with pytest.raises(BackendUnavailable, match=reason):
        require_fp32(Device(device), dtype, {"webgpu": {"fp16": False}})


# In a browser.


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> CountingSource:
    return CountingSource(tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation"))


def load(source: Any, device: str, dtype: str = "fp32") -> Any:
    return Backends().for_kind(device).load(make_cell(source.spec, device, dtype), source)


@pytest.fixture(scope="module")
def reference(gpt2: CountingSource) -> Any:
    return load(gpt2, "cpu", "fp64")


@pytest.fixture(scope="module")
def on_wasm(gpt2: CountingSource) -> Iterator[Any]:
    loaded = load(gpt2, "wasm")
    yield loaded
    loaded.close()


def browser_of(device: str) -> Any:
    from pytest_hfaccel.backends.browser.browser import browser_for

    return browser_for(find_installation(Device(device)))


def runtime_on(device: str, sample: dict[str, Any], **options: Any) -> Any:
    from pytest_hfaccel.backends.browser.runtime import BrowserRuntime

    return BrowserRuntime(browser_of(device), Device(device), 1, sample, **options)


def rel_l2(found: Any, expected: Any) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@needs_wasm
@pytest.mark.slow
def test_counters_tell_who_holds_memory_in_the_browser(on_wasm: Any, gpt2: CountingSource) -> None:
    on_wasm.forward(gpt2.sample().forward)
    before = on_wasm.memory_counters()
    assert before["tensors of the page"] == 0, "no run's tensors stay"
    assert before["processes of the pages"] > 2**20
    with on_wasm.occupied(2**24):
        during = on_wasm.memory_counters()
    assert during["JavaScript of the page"] - before["JavaScript of the page"] == pytest.approx(2**24, rel=0.1)


@needs_wasm
@pytest.mark.slow
def test_wasm_computes_what_torch_does(on_wasm: Any, reference: Any, gpt2: CountingSource) -> None:
    for rows, tokens in ((2, None), (1, 3)):
        inputs = {name: tensor[:rows, :tokens] for name, tensor in gpt2.sample().forward.items()}
        outputs, expected = on_wasm.forward(inputs), reference.forward(inputs)
        assert list(outputs) == list(expected)
        assert rel_l2(outputs["logits"], expected["logits"]) < 1e-5
    assert 0 < on_wasm.run_seconds() < 60
    placement = on_wasm.placement
    assert (placement.actual_devices, placement.implementation) == (("wasm",), "real")
    assert placement.details["nodes"].keys() == {"wasm"}
    assert on_wasm.nbytes > 0


@needs_wasm
@pytest.mark.slow
@pytest.mark.parametrize("use_cache", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_wasm_generates_what_torch_does(on_wasm: Any, reference: Any, gpt2: CountingSource, use_cache: bool) -> None:
    inputs = gpt2.sample().generate
    expected = reference.generate(inputs, max_new_tokens=4, use_cache=True)
    assert on_wasm.generate(inputs, max_new_tokens=4, use_cache=use_cache).tolist() == expected.tolist()


@needs_wasm
@pytest.mark.slow
def test_a_wrong_weight_is_seen_and_undone(on_wasm: Any, gpt2: CountingSource) -> None:
    inputs = gpt2.sample().forward
    before = on_wasm.forward(inputs)["logits"]
    with on_wasm.perturbed(WeightChange("transformer.h.0.mlp.c_fc.weight", 3, 1.0)) as wrong:
        assert rel_l2(wrong.forward(inputs)["logits"], before) > 1e-4
    assert bool((on_wasm.forward(inputs)["logits"] == before).all())


@needs_wasm
@pytest.mark.slow
def test_memory_is_that_of_the_browser(on_wasm: Any) -> None:
    size = 64 * 2**20
    on_wasm.reset_peak_memory()
    before = on_wasm.memory()
    with on_wasm.occupied(size):
        during = on_wasm.memory()
    assert during["current_bytes"] - before["current_bytes"] > size / 2
    assert during["peak_bytes"] >= during["current_bytes"]
    assert on_wasm.memory()["current_bytes"] < during["current_bytes"] - size / 2
    assert "browser" in before["peak_source"]


@needs_wasm
@pytest.mark.slow
def test_large_inputs_do_not_pile_up_in_the_browser() -> None:
    """DevTools kept the last 100 MB of what a page fetched: 16 runs of 4 MiB looked like a leak."""
    inputs = {"x": torch.zeros(2**17, 8)}
    runtime = runtime_on("wasm", {})
    graph = runtime.compile(product(), Device("wasm"), "fp32", "Product")
    memory = runtime.memory(Device("wasm"))
    for _ in range(4):
        graph.run(inputs)
    before = memory.read()["current_bytes"]
    for _ in range(16):
        graph.run(inputs)
    grown = memory.read()["current_bytes"] - before
    runtime.close()
    assert grown < 32 * 2**20, f"16 runs with 4 MiB of inputs left {grown / 2**20:.0f} MiB"


@needs_wasm
@pytest.mark.nightly
def test_transformers_js_fills_the_mask_as_python_does(shared_cache: Path) -> None:
    from transformers import pipeline

    if not (find_installation(Device("wasm")).modules / "@huggingface" / "transformers").is_dir():
        pytest.skip("transformers.js is not installed")
    source = tiny_checkpoint(shared_cache, "BertForMaskedLM", "fill-mask")
    loaded = load(source, "wasm")
    processors = source.processors()
    text = f"a {processors['tokenizer'].mask_token} b"
    found = loaded.transformers_js("fill-mask", [text], {})
    expected = pipeline("fill-mask", model=source.torch_model("fp32"), **processors)(text)
    assert [each["token_str"] for each in found] == [each["token_str"] for each in expected]
    assert [each["score"] for each in found] == pytest.approx([each["score"] for each in expected], rel=1e-4)
    loaded.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=mark)
        for kind, mark in [("wasm", needs_wasm), ("webgpu", needs_webgpu), ("webnn", needs_webnn)]
    ],
)
def test_a_device_is_confirmed_by_a_product_in_fp32(kind: str) -> None:
    facts = Backends().for_kind(kind).confirm(Device(kind))  # type: ignore[attr-defined]
    assert 0 < facts["product_error"] < 1e-6
    assert facts["browser"].startswith("chromium ")


@needs_webgpu
@pytest.mark.slow
def test_webgpu_in_software_is_emulated(tmp_path: Path) -> None:
    import torch

    from pytest_hfaccel.backends.browser.backend import placement_of

    runtime = runtime_on("webgpu", {"x": torch.ones(2, 8)})
    graph = runtime.compile(product(), Device("webgpu"), "fp32", "Product")
    assert torch.equal(graph.run({"x": torch.ones(2, 8)})["y"], torch.ones(2, 8))
    spec = tiny_checkpoint(tmp_path, "BertModel", "feature-extraction").spec
    placement = placement_of(make_cell(spec, "webgpu"), graph, {})
    adapter = placement.details["adapter"]
    if adapter["is_fallback"] or adapter["architecture"] == "swiftshader":
        assert placement.implementation == "emulated"
    assert placement.actual_devices == ("webgpu",)
    runtime.close()


@needs_webgpu
@pytest.mark.slow
def test_a_graph_that_takes_more_inputs_than_the_sample_has_is_opened_at_once(shared_cache: Path) -> None:
    """The exporter makes positions of this class's sizes before it traces: they are inputs of the graph."""
    spec = match_pairs("qwen3_vl_moe_vision/Qwen3VLMoeVisionModel")[0]
    source = CheckpointStore(shared_cache).prepare(spec, TINY)
    loaded = load(source, "webgpu")
    assert loaded.placement.details["nodes"]["webgpu"] > 0
    assert loaded.timings["compile"] > 0.1, "the session is part of loading, not of the first run"
    assert loaded.forward(source.sample().forward)
    loaded.close()


@needs_webnn
@pytest.mark.slow
def test_with_shapes_left_open_webnn_leaves_most_nodes_to_the_cpu_and_the_placement_says_so(
    gpt2: CountingSource,
) -> None:
    from pytest_hfaccel.backends.browser.backend import placement_of
    from pytest_hfaccel.backends.exported.graphs import Builder, Graphs

    cell, sample = make_cell(gpt2.spec, "webnn"), gpt2.sample().forward
    placements = {}
    for fix_shapes in (True, False):
        runtime = runtime_on("webnn", sample, fix_shapes=fix_shapes)
        graph = Graphs(Builder(runtime, gpt2, cell.device, "fp32")).graph(sample)
        placements[fix_shapes] = placement_of(cell, graph.compiled, {})  # type: ignore[arg-type]
        runtime.close()
    fixed, left_open = placements[True], placements[False]
    assert fixed.actual_devices == ("webnn",)
    assert fixed.details["nodes"]["webnn"] > 0.9 * sum(fixed.details["nodes"].values())
    assert left_open.actual_devices == ("wasm",), "which the check `placement` does not accept for webnn"
    assert left_open.details["nodes"]["wasm"] > left_open.details["nodes"]["webnn"]


@needs_webnn
@pytest.mark.slow
def test_webnn_computes_what_torch_does(reference: Any, gpt2: CountingSource) -> None:
    loaded = load(gpt2, "webnn")
    inputs = gpt2.sample().forward
    assert rel_l2(loaded.forward(inputs)["logits"], reference.forward(inputs)["logits"]) < 1e-5
    assert loaded.placement.details["runtime"] == "webnn(tflite,cpu)"
    expected = reference.generate(gpt2.sample().generate, max_new_tokens=3, use_cache=True)
    assert loaded.generate(gpt2.sample().generate, max_new_tokens=3, use_cache=False).tolist() == expected.tolist()
    with pytest.raises(NotImplementedError, match="fixed shapes"):
        loaded.generate(gpt2.sample().generate, max_new_tokens=3, use_cache=True)
    loaded.close()


@needs_wasm
@pytest.mark.slow
def test_a_run_that_does_not_end_costs_one_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pytest_hfaccel.backends.browser import runtime as module

    runtime = runtime_on("wasm", {"x": torch.tensor(3)})
    graph = runtime.compile(endless(), Device("wasm"), "fp32", "Endless")
    assert graph.run({"x": torch.tensor(3)})["y"].tolist() == [8]
    monkeypatch.setattr(module, "RUN_S", 1.0)
    with pytest.raises(DeviceTimeout, match="did not answer 'run' within 1 s; the browser was ended") as raised:
        graph.run({"x": torch.tensor(2**62)})
    assert raised.value.status == "timeout"
    assert graph.run({"x": torch.tensor(4)})["y"].tolist() == [16], "in a new browser"
    runtime.close()


@needs_wasm
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the browser", "the page"])
def test_a_browser_killed_in_the_middle_costs_one_run(victim: str) -> None:
    import torch

    browser = browser_of("wasm")
    runtime = runtime_on("wasm", {"x": torch.tensor(3)})
    graph = runtime.compile(endless(), Device("wasm"), "fp32", "Endless")
    other = runtime_on("wasm", {"x": torch.ones(2, 8)})
    untouched = other.compile(product(), Device("wasm"), "fp32", "Product")
    pages = [process for process in browser.processes() if "--type=renderer" in " ".join(process.cmdline())]
    victims = pages if victim == "the page" else [pages[0].parent()]
    while victim != "the page" and "--type=" in " ".join(victims[0].cmdline()):
        victims = [victims[0].parent()]
    threading.Timer(0.5, lambda: [process.kill() for process in victims]).start()
    with pytest.raises(DeviceCrashed, match=r"crashed|died") as raised:
        graph.run({"x": torch.tensor(2**62)})
    assert raised.value.status == "crashed"
    if victim == "the browser":  # all pages are gone, and the one that was at rest loses no run
        assert torch.equal(untouched.run({"x": torch.ones(2, 8)})["y"], torch.ones(2, 8))
    assert graph.run({"x": torch.tensor(4)})["y"].tolist() == [16]
    runtime.close()
    other.close()


@needs_webgpu
@pytest.mark.slow
def test_a_gpu_process_killed_in_the_middle_costs_one_run() -> None:
    import torch

    browser, inputs = browser_of("webgpu"), {"x": torch.ones(2, 8)}
    runtime = runtime_on("webgpu", inputs)
    graph = runtime.compile(product(), Device("webgpu"), "fp32", "Product")
    for process in browser.processes():
        if "--type=gpu-process" in " ".join(process.cmdline()):
            process.kill()
    with pytest.raises(DeviceCrashed, match="WebGPU device was lost"):
        graph.run(inputs)
    assert torch.equal(graph.run(inputs)["y"], torch.ones(2, 8)), "in a new page"
    runtime.close()


@needs_wasm
@pytest.mark.slow
def test_pages_and_runs_leave_no_process_behind() -> None:
    import torch

    browser, inputs = browser_of("wasm"), {"x": torch.ones(2, 8)}
    counts = []
    for _ in range(6):
        runtime = runtime_on("wasm", inputs)
        graph = runtime.compile(product(), Device("wasm"), "fp32", "Product")
        for _ in range(3):
            graph.run(inputs)
        runtime.close()
        counts.append(len(browser.processes()))
    # Chromium holds one or two in reserve, and ends others a moment later; one that stayed for each runtime would make
    # three more.
    until = time.monotonic() + 10
    while (left := len(browser.processes())) > min(counts[:3]) + 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert left <= min(counts[:3]) + 2, [*counts, left]


@needs_wasm
@pytest.mark.slow
def test_nothing_is_left_of_a_worker_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, psutil, time\n"
        "from pytest_hfaccel.backends.browser.browser import browser_for\n"
        "from pytest_hfaccel.backends.browser.installed import find_installation\n"
        "from pytest_hfaccel.core.spec import Device\n"
        "browser = browser_for(find_installation(Device('wasm')))\n"
        "browser.open_page()\n"
        "print(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]), flush=True)\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = json.loads(worker.stdout.readline())
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    assert len(pids) > 3
    until = time.monotonic() + 20
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@needs_wasm
@pytest.mark.slow
def test_a_page_reaches_nothing_but_this_machine() -> None:
    browser = browser_of("wasm")
    assert browser.server.refused == [], "nothing was looked up by the tests so far"
    page = browser.open_page()
    # No command of the page leads out, so the test speaks to it by Playwright.
    (inside,) = page._context.pages
    for address in ("http://example.com/model", "http://192.0.2.1/model"):
        text = browser._wait(inside.evaluate(f"fetch('{address}').then(() => 'reached', error => String(error))"), 20)
        assert "TypeError" in text
        assert browser.server.refused[-1] == address
    browser.server.refused.clear()
    page.close()
