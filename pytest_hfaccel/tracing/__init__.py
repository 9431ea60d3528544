"""What a model does, seen by running it on fake tensors: no weights, no download.

`traces` is the front: it remembers. Files here are plain data and arithmetic; those in `torch/` import torch at the top
and are imported late.
"""
