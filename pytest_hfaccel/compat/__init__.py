"""The APIs of the original guides that the product itself does not call, each over the package that does the work.

Users import them from where the guides say: `pytest_hfaccel.hardware` and `pytest_hfaccel.pool`, which load them late.
"""
