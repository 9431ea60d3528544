"""One run on many machines: a plan that deals its cells to shards, and the joining of their journals.

`hfaccel plan` and `hfaccel merge` are its commands; `pytest --hf-plan FILE --hf-shard k/N` runs one shard.
"""
