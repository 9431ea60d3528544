"""Inference requests that report every error."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.backends.openvino.device import read_property


def open_request(compiled: Any) -> Any:
    """Return an inference request of a compiled model whose `infer` raises what goes wrong.

    With one thread the CPU plugin of OpenVINO 2026.4 forgets the errors of a synchronous call: a shape that does not
    fit gives outputs that nobody has computed, and the next call may end in a segmentation fault
    (docs/upstream/openvino_one_thread_forgets_errors.py). An asynchronous call raises them.
    """
    request = compiled.create_infer_request()
    return _Asynchronous(request) if read_property(compiled, "INFERENCE_NUM_THREADS") == 1 else request


class _Asynchronous:
    """Starts a request and waits for it: `InferRequest.infer`, by the way that reports errors.

    Args:
        request: OpenVINO's request.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    def infer(self, inputs: Any, *, share_inputs: bool = False, share_outputs: bool = False) -> Any:  # noqa: ARG002
        """Run the model; see `openvino.InferRequest.infer`. Outputs are always copied."""
        self._request.start_async(inputs, share_inputs=share_inputs)
        self._request.wait()
        return self._request.results
