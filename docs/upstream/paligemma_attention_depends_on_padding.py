"""transformers 5.23: PaliGemma (and ColPali) attends to later tokens with sdpa, and does not with eager attention.

Without `token_type_ids` its mask is causal, and its layers have `is_causal = False`. Where sdpa leaves a causal mask to
that flag (no padding in the batch) the tokens see each other in both directions; with eager attention, or as soon as
another sample of the batch is padded, they do not. ColPali never passes `token_type_ids`.
"""

import torch
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaModel, SiglipVisionConfig

torch.manual_seed(0)
text = GemmaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.5,
)
vision = SiglipVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
)
config = PaliGemmaConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_index=63)
model = PaliGemmaModel(config).eval()
ids = torch.randint(5, 60, (1, 8))
outputs = {}
for attention in ("sdpa", "eager"):
    model.set_attn_implementation(attention)
    with torch.no_grad():
        outputs[attention] = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
difference = ((outputs["sdpa"] - outputs["eager"]).norm() / outputs["eager"].norm()).item()
print(f"DEFECT: rel-L2 {difference:.2g} between sdpa and eager attention" if difference > 1e-4 else "FIXED")
