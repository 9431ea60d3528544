"""transformers 5.23: the auto mapping of base models names a class that does not exist.

`AutoModel.from_config` of a `voxtral_realtime_text` config therefore ends in an error about the mapping, not about the
config.
"""

import transformers
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

name = MODEL_MAPPING_NAMES.get("voxtral_realtime_text")
exists = name is None or hasattr(transformers, name)
print("FIXED" if exists else f"DEFECT: MODEL_MAPPING_NAMES names {name}, which transformers does not have")
