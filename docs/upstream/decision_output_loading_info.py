"""transformers 5.23: `JevForDecision.from_pretrained(..., output_loading_info=True)` fails.

`DecisionMixin.from_pretrained` sets an attribute of what `super().from_pretrained` returns; with
`output_loading_info=True` that is a tuple of model and info.
"""

import tempfile

from transformers import JevConfig, JevForDecision, LlamaConfig

sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
model = JevForDecision(JevConfig(text_config=LlamaConfig(**sizes).to_dict()))
with tempfile.TemporaryDirectory() as directory:
    model.save_pretrained(directory)
    try:
        JevForDecision.from_pretrained(directory, output_loading_info=True)
    except AttributeError as error:
        print(f"DEFECT: AttributeError: {error}")
    else:
        print("FIXED")
