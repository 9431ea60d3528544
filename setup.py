"""What pyproject.toml cannot say: model_classes/ is shipped as `pytest_hfaccel.model_classes`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pytest_hfaccel", "pytest_hfaccel.*"]), "pytest_hfaccel.model_classes"],
    package_dir={"pytest_hfaccel.model_classes": "model_classes"},
)
