"""The APIs of the original guides that the product itself does not call, each over the package that does the work.

Users import them from where the guides say: `pytest_hfaccel.hardware`, `pytest_hfaccel.pool` and
`pytest_hfaccel.predict`, which load them late.
"""
