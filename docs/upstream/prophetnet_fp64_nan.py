"""transformers 5.23: ProphetNet (and CANINE, Splinter) give NaN in fp64 where fp32 gives numbers.

Masks are filled with the lowest number of the dtype and added up; in fp64 the sum is minus infinity, and the softmax of
a row of them is NaN. In fp32 some of the steps are done with the lowest number of fp16 or fp32, and nothing overflows.
"""

import torch
from transformers import ProphetNetConfig, ProphetNetModel

torch.manual_seed(0)
config = ProphetNetConfig(
    vocab_size=64,
    hidden_size=32,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_encoder_attention_heads=4,
    num_decoder_attention_heads=4,
    max_position_embeddings=64,
)
model = ProphetNetModel(config).eval()
ids = torch.randint(5, 60, (2, 8))
mask = torch.ones_like(ids)
mask[1, 5:] = 0
inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :4]}
with torch.no_grad():
    single, double = (model.to(dtype)(**inputs).last_hidden_state for dtype in (torch.float32, torch.float64))
print("NaN in fp32:", int(single.isnan().sum()), "in fp64:", int(double.isnan().sum()))
print("DEFECT: NaN in fp64 only" if double.isnan().any() and not single.isnan().any() else "FIXED")
