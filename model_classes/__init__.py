"""Model class modules, also installed with the package: `pytest --pyargs pytest_hfaccel.model_classes`."""
