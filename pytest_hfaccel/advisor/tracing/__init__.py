"""Running an architecture on fake tensors. All but `input_shapes` import torch at the top: import these files late."""
