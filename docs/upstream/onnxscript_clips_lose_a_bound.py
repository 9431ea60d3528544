"""onnxscript 0.7.2: where two pairs of `Clip` begin at one value, fusing them loses the bounds of the second.

The rule that makes one `Clip` of two names the new bounds after the value that is clipped
(`rewriter/rules/common/_fuse_relus_clips.py`), and a bound whose name is taken is not added to the graph. The fused
graph is invalid, and ONNX Runtime refuses it (`Node input 'x_min_1' is not a graph input, initializer, or output`). By
default `torch.onnx.export` optimizes. The class of transformers that this concerns: Gemma4AudioModel.
"""

import numpy as np
import onnx_ir
from onnxscript import optimizer


def clip(value: onnx_ir.Value, low: float, high: float) -> onnx_ir.Value:
    bounds = []
    for name, number in (("low", low), ("high", high)):
        name = f"{name}_{len(constants)}"
        bounds.append(onnx_ir.Value(name=name, const_value=onnx_ir.tensor(np.float32(number), name=name)))
        constants.append(bounds[-1])
    clipped = onnx_ir.Value(shape=x.shape, type=x.type)
    nodes.append(onnx_ir.node("Clip", [value, *bounds], outputs=[clipped]))
    return clipped


constants: list[onnx_ir.Value] = []
nodes: list[onnx_ir.Node] = []
x = onnx_ir.Value(name="x", shape=onnx_ir.Shape([3]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
outputs = [clip(clip(x, -9, 9), -limit, limit) for limit in (1, 2)]
graph = onnx_ir.Graph([x], outputs, nodes=nodes, initializers=constants, opset_imports={"": 20}, name="clips")
model = onnx_ir.Model(graph, ir_version=10)
optimizer.optimize(model)
known = {*model.graph.initializers, "x"}
lost = [value.name for node in model.graph for value in node.inputs if value is not None and value.name not in known]
print([node.op_type for node in model.graph], "without a value:", lost)
print("DEFECT: bounds are lost" if lost else "FIXED")
