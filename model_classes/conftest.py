"""The sweep over every class of transformers takes hours on all devices: it runs where it is named, not by the way.

`pytest model_classes/test_hf_auto.py --all-models` runs it; `pytest --all-models` runs the registered models.
"""

collect_ignore = ["test_hf_auto.py"]
