"""onnxscript 0.7.2: the optimizer takes `x + 1e-8` for `x + 0`, and removes it.

Its rule `add_0` compares the constant with 0 by an absolute tolerance of 1e-8 (`rewriter/_pattern_ir.py: Constant`),
whatever the size of `x`. In an RMS norm the constant keeps the root of a row of zeros from being 0: without it, the row
of the padding token becomes NaN (Helium, whose `rms_norm_eps` is 1e-8). By default
`torch.onnx.export` optimizes.
"""

import numpy as np
import onnx_ir
from onnxscript import optimizer

x = onnx_ir.Value(name="x", shape=onnx_ir.Shape([3]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
eps = onnx_ir.Value(name="eps", const_value=onnx_ir.tensor(np.float32(1e-8), name="eps"))
add = onnx_ir.node("Add", [x, eps])
root = onnx_ir.node("Sqrt", add.outputs)
inverse = onnx_ir.node("Reciprocal", root.outputs)
graph = onnx_ir.Graph(
    [x], inverse.outputs, nodes=[add, root, inverse], initializers=[eps], opset_imports={"": 20}, name="rsqrt"
)
model = onnx_ir.Model(graph, ir_version=10)
optimizer.optimize(model)
left = [node.op_type for node in model.graph]
print(left)
print("FIXED" if "Add" in left else "DEFECT: the addition of 1e-8 is gone: 1 / sqrt(0 + 1e-8) is now infinite")
