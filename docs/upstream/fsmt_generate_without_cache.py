"""transformers 5.23: FSMT decodes without a causal mask when `generate` runs without a cache.

`FSMTModel.forward` makes the decoder's masks only `if not use_cache and input_ids is not None`. `generate` passes
`encoder_outputs` instead of `input_ids`, so that with `use_cache=False` there is no causal mask: a position sees those
after it, and `generate(use_cache=False)` gives other tokens than `generate(use_cache=True)`.
"""

import torch
from transformers import FSMTConfig, FSMTForConditionalGeneration

torch.manual_seed(0)
config = FSMTConfig(
    src_vocab_size=64,
    tgt_vocab_size=64,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    max_position_embeddings=64,
    init_std=0.5,
)
model = FSMTForConditionalGeneration(config).eval()
source, target = torch.randint(5, 60, (1, 8)), torch.randint(5, 60, (1, 6))
other = target.clone()
other[:, 3:] = 7  # only later tokens
with torch.no_grad():
    encoded = model.get_encoder()(source)
    first, second = (
        model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False).logits[:, :3] for ids in (target, other)
    )
distance = float((first - second).abs().max())
print(f"DEFECT: logits of positions 0 to 2 depend on later tokens, by {distance:.3g}" if distance else "FIXED")
