"""A request that fails says so, also with one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
ov = pytest.importorskip("openvino", reason="openvino is an extra of this package")


def compiled_sum(threads: int) -> Any:
    import openvino.opset14 as ops

    first, second = ops.parameter([-1], np.float32), ops.parameter([-1], np.float32)
    model = ov.Model([ops.add(ops.relu(first), ops.relu(second))], [first, second])
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})


@pytest.mark.parametrize("threads", [1, 2])
def test_shapes_that_do_not_fit_are_an_error(threads: int) -> None:
    from pytest_hfaccel.backends.openvino.requests import open_request

    request = open_request(compiled_sum(threads))
    with pytest.raises(RuntimeError, match="mismatch"):
        request.infer([np.ones(2, np.float32), np.ones(3, np.float32)])


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_keyed_by_port_and_are_the_callers_own(threads: int) -> None:
    from pytest_hfaccel.backends.openvino.requests import open_request

    compiled = compiled_sum(threads)
    request = open_request(compiled)
    twos = request.infer([np.ones(2, np.float32)] * 2, share_inputs=True)[compiled.output(0)]
    request.infer([np.full(2, 5, np.float32)] * 2, share_inputs=True)
    assert twos.tolist() == [2.0, 2.0]
