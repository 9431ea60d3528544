"""What a model does, seen by running it on fake tensors: no weights, no download.

`trace` and `cost` are plain data; the files that import torch at the top are imported late.
"""
