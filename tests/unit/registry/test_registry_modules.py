"""Which classes have a model class module, read from the modules' sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.registry.auto_classes import every_pair
from pytest_hfaccel.registry.installed import ModuleClass, read_modules, without_module

OURS = Path(__file__).parents[3] / "model_classes"


def test_modules_are_read_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "raise SystemExit\nclass TestA:\n    architectures = ('A*', 'BModel')\nclass TestC:\n    x = f()\n", "utf-8"
    )
    assert read_modules(tmp_path) == [ModuleClass("test_a.py", ("A*", "BModel"), fallback=False)]


def test_a_file_that_is_not_python(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("class", "utf-8")
    with pytest.raises(RegistryError, match=r"test_a\.py: it cannot be read as Python"):
        read_modules(tmp_path)


def test_classes_without_a_module_may_be_carried_by_one_for_all() -> None:
    own = [ModuleClass("test_a.py", ("A*",), fallback=False)]
    assert without_module(["AModel", "BModel"], own) == {"BModel": False}
    assert without_module(["AModel", "BModel"], [*own, ModuleClass("test_z.py", (), fallback=True)]) == {"BModel": True}


def test_every_class_of_transformers_has_a_module_here() -> None:
    found = without_module({spec.architecture for spec in every_pair()}, read_modules(OURS))
    assert len(found) > 1000
    assert all(found.values())
