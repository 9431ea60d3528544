"""transformers 5.23: `PixioBackbone` swaps two layer norms when it is saved and loaded.

The backbone has a `layernorm` of its own and one inside `pixio`; after a round trip each has the other's weights.
"""

import tempfile

import torch
from transformers import PixioBackbone, PixioConfig

torch.manual_seed(0)
config = PixioConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=16)
model = PixioBackbone(config)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.normal_()
with tempfile.TemporaryDirectory() as directory:
    model.save_pretrained(directory)
    again = PixioBackbone.from_pretrained(directory)
before, after = model.state_dict(), again.state_dict()
changed = [name for name in before if not torch.equal(before[name], after[name])]
print(f"DEFECT: other weights after a round trip: {', '.join(changed)}" if changed else "FIXED")
