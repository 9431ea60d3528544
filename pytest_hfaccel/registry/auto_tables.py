"""Which classes the auto mappings of the installed transformers name, read without importing it.

`transformers.models.auto.modeling_auto` holds literal tables `MODEL_FOR_<HEAD>_MAPPING_NAMES` of (model type, class
name) pairs. Importing the module costs about a second and pulls in torch where it is installed; parsing its source
takes some 40 ms, once per process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_SOURCE = "models/auto/modeling_auto.py"


class AutoEntry(NamedTuple):
    """One line of one auto mapping.

    Attributes:
        head: What the mapping is for: `CAUSAL_LM`, `CTC`, ...; empty for the base models of `AutoModel`.
        model_type: The `model_type` of the config, e.g. `opt`.
        architecture: transformers class name, e.g. `OPTForCausalLM`.
    """

    head: str
    model_type: str
    architecture: str


@cache
def auto_entries() -> tuple[AutoEntry, ...]:
    """Return what the installed transformers maps, in its order; nothing where it is not installed."""
    # `find_spec` of a top-level package finds it without running it.
    found = find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return ()
    path = Path(found.submodule_search_locations[0], _SOURCE)
    return tuple(read_entries(path.read_text(encoding="utf-8"))) if path.is_file() else ()


def read_entries(source: str) -> Iterator[AutoEntry]:
    """Read the mappings out of the source of `modeling_auto.py`."""
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name = node.targets[0].id
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES") and isinstance(node.value, ast.Call):
            head = name.removeprefix("MODEL_").removesuffix("MAPPING_NAMES").strip("_").removeprefix("FOR_")
            yield from (AutoEntry(head, *pair) for pair in _pairs(node.value))


def _pairs(call: ast.Call) -> Iterator[tuple[str, str]]:
    elements = call.args[0].elts if call.args and isinstance(call.args[0], ast.List) else []
    for element in elements:
        # One table splices another in (`*list(...)`); its entries are read where they are written.
        if isinstance(element, ast.Tuple):
            model_type, names = ast.literal_eval(element)
            yield from ((model_type, name) for name in ([names] if isinstance(names, str) else names))
