"""Who may import whom. The table is the architecture; `ARCHITECTURE.md` explains it in words."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pytest_hfaccel"

# Layer -> the layers of ours it may import, anywhere in its files. `backends.base`, the protocols, is one of its own.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "core": set(),
    # What we patch of other projects; whoever patches may import it.
    "upstream": {"core"},
    "registry": {"core", "upstream"},
    "classify": {"core", "registry"},
    "hardware": {"backends", "compat", "core"},
    "backends.base": {"core"},
    "backends": {"backends.base", "core", "upstream"},
    "checkpoints": {"backends.base", "core", "upstream"},
    "tracing": {"checkpoints", "core", "upstream"},
    # The page of a run names the family of each model.
    "reporting": {"classify", "core"},
    # Plans and merged runs are plain data; what pytest selects comes from the plugin. The nodes of a cluster are asked
    # for their devices.
    "distributed": {"core", "hardware", "reporting"},
    "numerics": {"backends.base", "core"},
    "checks": {"backends.base", "benchmark", "checkpoints", "core", "numerics", "registry", "upstream"},
    "pool": {"backends.base", "compat", "core", "hardware"},
    "engine": {
        "backends",
        "backends.base",
        "benchmark",
        "checkpoints",
        "checks",
        "core",
        "hardware",
        "numerics",
        "pool",
        "registry",
        "reporting",
    },
    # The cells of its experiments are run by the engine.
    "explain": {"backends", "backends.base", "core", "engine", "hardware", "numerics", "reporting", "upstream"},
    "bisect": {"core", "reporting"},
    "generator": {"classify", "core", "registry"},
    "project": {"__version__", "core", "generator", "hardware", "registry"},
    "selftest": {"backends", "backends.base", "checkpoints", "checks", "core", "engine", "numerics", "upstream"},
    "benchmark": {"backends", "backends.base", "checkpoints", "core", "hardware", "tracing"},
    "campaign": {
        "backends",
        "backends.base",
        "benchmark",
        "checkpoints",
        "core",
        "engine",
        "hardware",
        "registry",
    },
    "history": {"__version__", "benchmark", "classify", "core", "reporting"},
    "comparison": {"benchmark", "core", "history", "reporting"},
    "plots": {"benchmark", "core"},
    # The operators of a calibration run as the backends run models: with their sessions, in their pages.
    "predict": {
        "backends",
        "benchmark",
        "classify",
        "compat",
        "core",
        "hardware",
        "history",
        "plots",
        "registry",
        "reporting",
        "tracing",
    },
}

# Pairs of packages that import each other. Each is a debt: the list may only become shorter.
CIRCLES: set[tuple[str, str]] = set()

# Layers that may import every layer but these.
MAY_NOT_IMPORT: dict[str, set[str]] = {
    "plugin": {"cli"},
    "cli": {"plugin"},
    "compat": {"plugin", "cli"},
    "testing": {"plugin", "cli", "compat"},
}

# Only these may import pytest at all.
PYTEST_LAYERS = {"plugin", "testing"}

# Never at the top of a file: the start of pytest, `--help` and collection would pay for it.
HEAVY = {
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
    "executorch",
    "duckdb",
    "pandas",
    "sklearn",
    "matplotlib",
    "numpy",
    "PIL",
    "ray",
    "rich",
    "sky",
}

MODULES_IN_A_FOLDER = 14

# Files that are imported only when a cell is loaded or compared, and say so in their docstring or name.
LATE = (
    "backends/browser/backend.py",
    "backends/browser/runtime.py",
    "backends/browser/server.py",
    "backends/executorch/",
    "backends/exported/",
    "backends/openvino/",
    "backends/onnxruntime/",
    "backends/torch/",
    "checkpoints/",
    "explain/experiments.py",
    "explain/generation/calls.py",
    "explain/graphs.py",
    "explain/leaks.py",
    "explain/modules.py",
    "explain/onnx_graphs.py",
    "explain/openvino_graphs.py",
    "explain/operators.py",
    "explain/parts.py",
    "explain/torch_values.py",
    "explain/variants.py",
    "predict/calibration/browser_operators.py",
    "predict/calibration/onnx_graphs.py",
    "predict/calibration/onnx_operators.py",
    "predict/calibration/openvino_operators.py",
    "predict/calibration/roofline.py",
    "predict/calibration/torch_operators.py",
    "predict/learning/models.py",
    "predict/learning/training.py",
    "plots/accuracy.py",
    "plots/matrix.py",
    "plots/measurements.py",
    "plots/roofline.py",
    "plots/style.py",
    "tracing/torch/",
)


def layer_of(dotted: str) -> str:
    """`pytest_hfaccel.backends.base` -> `backends.base`; sub-modules belong to their package's layer."""
    parts = dotted.removeprefix("pytest_hfaccel").strip(".").split(".")
    two = ".".join(parts[:2])
    return two if two == "backends.base" else parts[0] or "__init__"


def files() -> list[Path]:
    # The generator's templates are jinja2, named after the modules they make.
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "templates")


def module_of(path: Path) -> str:
    return ".".join(("pytest_hfaccel", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path, *, top_only: bool = False) -> tuple[str, ...]:
    """Dotted names of what a file imports; `if TYPE_CHECKING:` blocks do not count as top level."""
    return both_imports(path)[top_only]


@cache
def both_imports(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a file imports anywhere, and at its top level; it is parsed once."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(imported(ast.walk(tree), path)), tuple(imported(tree.body, path))


def imported(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the layer"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from inner if node.module in ("pytest_hfaccel", "pytest_hfaccel.backends") else [node.module]


def ours(path: Path) -> Iterator[str]:
    for name in imports(path):
        if name.partition(".")[0] == "pytest_hfaccel":
            yield layer_of(name)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_only_what_it_may(path: Path) -> None:
    own = layer_of(module_of(path))
    targets = set(ours(path)) - {own}
    if own in MAY_NOT_IMPORT:
        assert not targets & MAY_NOT_IMPORT[own]
    elif own != "__init__":
        assert targets <= MAY_IMPORT[own] | {"__init__"}, f"{own} may import {sorted(MAY_IMPORT[own])}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_plugin_imports_pytest(path: Path) -> None:
    if layer_of(module_of(path)) not in PYTEST_LAYERS:
        assert "pytest" not in {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_late(path: Path) -> None:
    if not str(path.relative_to(PACKAGE).as_posix()).startswith(LATE):
        assert not HEAVY & {name.partition(".")[0] for name in imports(path, top_only=True)}


@pytest.mark.parametrize("folder", sorted({path.parent for path in files()}), ids=lambda path: path.name)
def test_a_folder_has_few_modules(folder: Path) -> None:
    """With more, one has to search: merge what changes together, or make a sub-package of what belongs together."""
    assert len(list(folder.glob("*.py"))) <= MODULES_IN_A_FOLDER


def test_backends_do_not_import_each_other() -> None:
    folders = {folder.name for folder in (PACKAGE / "backends").iterdir() if folder.is_dir()}
    shared = {"exported"}  # what every exported runtime imports; it imports none of them
    for name in sorted(folders):
        for path in (PACKAGE / "backends" / name).glob("*.py"):
            others = {f"pytest_hfaccel.backends.{other}" for other in folders - shared - {name}}
            found = {imported for imported in imports(path) if imported.startswith(tuple(others))}
            assert not found, f"{path.name} imports {found}"


def imported_by(path: Path) -> set[str]:
    """The modules of ours that a file needs when it runs: `if TYPE_CHECKING:` blocks do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in for_types]
    return {node.module for node in ours if node.module and node.module.startswith(PACKAGE.name)}


def test_packages_do_not_import_each_other() -> None:
    edges = {
        (module_of(path).split(".")[1], target.split(".")[1])
        for path in files()
        if "." in module_of(path)
        for target in imported_by(path)
        if "." in target
    }
    circles = {tuple(sorted(edge)) for edge in edges if edge[0] != edge[1] and edge[::-1] in edges}
    assert circles == CIRCLES, "a new circle, or one that is gone: then delete it from the list"


def test_files_do_not_import_each_other_while_they_are_loaded() -> None:
    modules = {module_of(path) for path in files()}

    def loaded_with(path: Path) -> set[str]:
        found = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                # `from package import module` needs the module, not what else the package exports.
                found |= parts & modules or {node.module}
        return found - {module_of(path)}

    graph = {module_of(path): loaded_with(path) for path in files()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the files
