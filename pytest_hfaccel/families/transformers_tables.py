"""The auto mappings of the installed transformers, read without importing it.

`transformers.models.auto.modeling_auto` holds literal tables `MODEL_FOR_<HEAD>_MAPPING_NAMES` of
(model type, class name) pairs. Importing the module costs about a second and pulls in torch where it is installed;
parsing its source takes some 40 ms, once per process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SOURCE = "models/auto/modeling_auto.py"


@dataclass(frozen=True)
class AutoTables:
    """What the auto mappings say.

    Attributes:
        heads_of_type: Model type -> the heads (`FOR_CAUSAL_LM`, `FOR_CTC`, ...; the base model is ``) that list it.
        heads_of_class: Class name -> head -> the model types it serves there.
    """

    heads_of_type: Mapping[str, frozenset[str]]
    heads_of_class: Mapping[str, Mapping[str, tuple[str, ...]]]


@cache
def auto_tables() -> AutoTables:
    """Return the tables of the installed transformers; empty ones where it is not installed."""
    # `find_spec` of a top-level package finds it without running it.
    found = find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return AutoTables({}, {})
    path = Path(found.submodule_search_locations[0], _SOURCE)
    return read_tables(path.read_text(encoding="utf-8")) if path.is_file() else AutoTables({}, {})


def read_tables(source: str) -> AutoTables:
    """Read the mappings out of the source of `modeling_auto.py`."""
    types: dict[str, set[str]] = {}
    classes: dict[str, dict[str, list[str]]] = {}
    for head, model_type, class_name in _entries(source):
        types.setdefault(model_type, set()).add(head)
        classes.setdefault(class_name, {}).setdefault(head, []).append(model_type)
    return AutoTables(
        {model_type: frozenset(heads) for model_type, heads in types.items()},
        {name: {head: tuple(of) for head, of in heads.items()} for name, heads in classes.items()},
    )


def _entries(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (head, model type, class name) for each literal pair of each table."""
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name = node.targets[0].id
        if name.startswith("MODEL_") and name.endswith("_NAMES") and isinstance(node.value, ast.Call):
            head = name.removeprefix("MODEL_").removesuffix("_NAMES").removesuffix("MAPPING").strip("_")
            yield from ((head, *pair) for pair in _pairs(node.value))


def _pairs(call: ast.Call) -> Iterator[tuple[str, str]]:
    elements = call.args[0].elts if call.args and isinstance(call.args[0], ast.List) else []
    for element in elements:
        # One table splices another in (`*list(...)`); its entries are read where they are written.
        if isinstance(element, ast.Tuple):
            model_type, names = ast.literal_eval(element)
            yield from ((model_type, name) for name in ([names] if isinstance(names, str) else names))
