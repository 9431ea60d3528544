"""Tests in other processes than the one that collects: pytest-xdist's workers, and the processes of `--hf-isolate`."""
