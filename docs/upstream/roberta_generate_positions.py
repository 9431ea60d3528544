"""transformers 5.23: `generate` hands RoBERTa and its like other positions than they count by themselves.

`RobertaEmbeddings` numbers tokens from `padding_idx + 1` on. `GenerationMixin.prepare_inputs_for_generation` makes
`position_ids` from 0 on, because `forward` takes them, and the embeddings use them as they are: every token gets the
position embedding of another place, token `padding_idx` that of padding. So the first token of `generate` is not the
one that `forward` predicts. Camembert, XLM-RoBERTa, XLM-RoBERTa-XL, X-MOD, Data2VecText and RoBERTa-PreLayerNorm do
the same; BERT, ELECTRA, ERNIE and OPT do not.
"""

import torch
from transformers import RobertaConfig, RobertaForCausalLM

torch.manual_seed(0)
config = RobertaConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=64,
    is_decoder=True,
    initializer_range=1.0,
)
model = RobertaForCausalLM(config).eval()
prompt = torch.randint(5, 50, (1, 6))
with torch.no_grad():
    expected = model(prompt).logits[:, -1]
    generated = model.generate(
        prompt, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
distance = float((generated.logits[0] - expected).abs().max())
print(f"DEFECT: the logits of its first token differ from forward's by {distance:.3g}" if distance > 1e-4 else "FIXED")
