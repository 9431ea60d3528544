"""The Python API of the older guides, each module over the package that does its work."""
