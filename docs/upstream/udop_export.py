"""transformers 5.23: `OpenVINOExporter` cannot export UDOP.

`combine_image_text_embeddings` (modeling_udop.py) writes `patch_inds[rows, cols] = False` with tuples of scalar tensors
for `rows` and `cols`. Torch reads such an index as numbers, which the tensors have none of while `torch.export` traces.
"""

import torch
from transformers import UdopConfig, UdopModel
from transformers.exporters import OpenVINOConfig, OpenVINOExporter

torch.manual_seed(0)
config = UdopConfig(
    vocab_size=64,
    d_model=32,
    d_kv=8,
    d_ff=64,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=4,
    image_size=32,
    patch_size=16,
    max_2d_position_embeddings=1024,
)
model = UdopModel(config).eval()
ids = torch.randint(5, 60, (2, 8))
inputs = {
    "input_ids": ids,
    "attention_mask": torch.ones_like(ids),
    "bbox": torch.rand(2, 8, 4),
    "pixel_values": torch.randn(2, 3, 32, 32),
    "decoder_input_ids": ids[:, :4],
}
with torch.no_grad():
    model(**inputs)
try:
    OpenVINOExporter().export(model, inputs, OpenVINOConfig())
except Exception as error:
    print(f"DEFECT: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
else:
    print("FIXED")
