"""OpenVINO 2026.4, CPU plugin: with one inference thread a synchronous call forgets its errors.

Two inputs that cannot be added give an exception with two threads, and with one thread if the call is asynchronous. A
synchronous call with one thread returns outputs that nobody has computed: empty ones here, uninitialised memory in
larger graphs, where the next call may end in a segmentation fault.
"""

import numpy as np
import openvino as ov
import openvino.opset14 as ops

first, second = ops.parameter([-1], np.float32), ops.parameter([-1], np.float32)
model = ov.Model([ops.add(ops.relu(first), ops.relu(second))], [first, second])
forgotten = False
for threads in (2, 1):
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    try:
        outputs = request.infer([np.ones(2, np.float32), np.ones(3, np.float32)])
    except RuntimeError as error:
        print(f"{threads} threads: {str(error).strip().splitlines()[-1]}")
    else:
        print(f"{threads} threads: {outputs[0]}")
        forgotten = True
print("DEFECT: shapes 2 and 3 were added without an error" if forgotten else "FIXED")
