"""Converting sends no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("openvino", reason="openvino is an extra of this package")
openvino_telemetry = pytest.importorskip("openvino_telemetry", reason="without it openvino has nothing to send with")


def test_a_message_is_neither_sent_nor_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry

    from pytest_hfaccel.upstream.openvino import send_no_telemetry

    send_no_telemetry()
    telemetry = init_ovc_telemetry()  # as the converter gets it
    sent: list[object] = []
    monkeypatch.setattr(telemetry.sender, "send", lambda *message: sent.append(message))
    telemetry.send_event("a", "b", "c")
    assert sent == []
    telemetry.consent = True
    telemetry.send_event("a", "b", "c")
    assert len(sent) == 1
    send_no_telemetry()
    telemetry.send_event("a", "b", "c")
    assert len(sent) == 1


@pytest.mark.filterwarnings("ignore")  # torch's own, while it is imported
def test_private_names_of_its_backend_of_torch_compile_are_there() -> None:
    import inspect

    from openvino.frontend.pytorch.torchdynamo import backend, execute

    from pytest_hfaccel.upstream.openvino import clear_compiled_graphs, compile_refusals, compiled_graphs

    clear_compiled_graphs()
    assert compiled_graphs() == 0
    with compile_refusals() as refusals:
        backend.logger.debug("Failed in execution: %s", "why")
        backend.logger.debug("another remark")
    assert refusals == ["Failed in execution: why"]
    assert "ailed" in inspect.getsource(backend) + inspect.getsource(execute), "it words its refusals otherwise"


def test_its_runner_takes_a_request_of_ours() -> None:
    import openvino as ov
    import openvino.opset14 as ops
    import torch
    from transformers.exporters.metadata import ExportMetadata

    from pytest_hfaccel.upstream.transformers import openvino_runner

    parameter = ops.parameter([2], ov.Type.f32, name="x")
    parameter.output(0).get_tensor().set_names({"x"})
    compiled = ov.Core().compile_model(
        ov.Model([ops.add(parameter, ops.constant([1.0, 2.0], ov.Type.f32))], [parameter])
    )
    request = compiled.create_infer_request()
    spec = torch.utils._pytree.treespec_dumps(torch.utils._pytree.tree_flatten((torch.ones(1),))[1])
    run = openvino_runner(compiled, ExportMetadata(out_spec=spec), request)
    (found,) = run(x=torch.ones(2))
    assert found.tolist() == [2.0, 3.0]
    assert request.get_output_tensor(0).data.tolist() == [2.0, 3.0], "it ran another request"


def test_importing_it_starts_a_thread_and_need_not(tmp_path: Path) -> None:
    """Without ours it starts the one that sends: when it no longer does, `silent_import` can go."""
    plain = "import threading, openvino; print(threading.active_count())"
    silent = (
        "import threading\nfrom pytest_hfaccel.upstream.openvino import silent_import\n"
        "with silent_import():\n    import openvino\nprint(threading.active_count())"
    )
    env = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    counts = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.strip()
        for code in (plain, silent)
    ]
    assert counts == ["2", "1"]
