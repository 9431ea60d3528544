"""transformers 5.23: an exported GLM-OCR gives other outputs, without a warning.

`DynamoExporter` replaces the forward of every vision attention by one common to all; that one leaves out the norms of
queries and keys, which GLM-OCR's has.
"""

import torch
from transformers import GlmOcrVisionConfig, GlmOcrVisionModel
from transformers.exporters import DynamoConfig, DynamoExporter
from transformers.exporters.utils import precompute_export_inputs

torch.manual_seed(0)
config = GlmOcrVisionConfig(
    depth=1, hidden_size=32, num_heads=2, image_size=16, patch_size=4, out_hidden_size=32, intermediate_size=32
)
model = GlmOcrVisionModel(config).eval()
inputs = {"hidden_states": torch.randn(16, 3 * 2 * 4 * 4), "grid_thw": torch.tensor([[1, 4, 4]])}
precompute_export_inputs(model, inputs)
with torch.no_grad():
    eager = model(**inputs).last_hidden_state
    program = DynamoExporter().export(model, inputs, DynamoConfig()).program
    exported = program.module()(**inputs).last_hidden_state
difference = ((eager - exported).norm() / eager.norm()).item()
print(f"DEFECT: rel-L2 {difference:.2g} between eager and exported" if difference > 1e-4 else "FIXED")
