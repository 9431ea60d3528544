"""onnxscript 0.7.2: `x.squeeze(dim)` becomes `Squeeze`, also where that axis is longer than 1.

torch's `squeeze` leaves such an axis alone; ONNX's `Squeeze` must not meet one, so that ONNX Runtime refuses the graph
(`Dimension of input 1 must be 1 instead of 3`). The shape is known when the operator is translated
(`function_libs/torch_lib/ops/core.py: aten_squeeze_dim`). Classes of transformers that this concerns: Mistral3Model,
and those with the joint network of RNN-T (ParakeetForRNNT and others).
"""

import torch


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1).squeeze(1)


graph = torch.onnx.export(Model(), (torch.ones(2, 3),), dynamo=True, verbose=False).model.graph
left = [node.op_type for node in graph]
print(left)
print("FIXED" if "Squeeze" not in left else "DEFECT: an axis of length 3 is squeezed")
