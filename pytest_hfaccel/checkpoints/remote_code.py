"""Model classes that a repository brings itself. Reached only with the user's consent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_hfaccel.errors import ConfigError, LoadError
from pytest_hfaccel.spec import ModelSpec


def demand_consent(spec: ModelSpec, *, trusted: bool) -> None:
    """Refuse a model that needs its repository's code, unless the user trusts it.

    Raises:
        ConfigError: Without consent.
    """
    if spec.requires_remote_code and not trusted:
        raise ConfigError(
            f"{spec.name} needs the code of its repository.",
            hint="Read that code; --hf-trust-remote-code then runs it.",
        )


def remote_class(directory: Path, spec: ModelSpec) -> Any:
    """Import the class that the checkpoint's `auto_map` names as the model's architecture.

    Raises:
        LoadError: It names no such class.
    """
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    references = [name for name in config.get("auto_map", {}).values() if isinstance(name, str)]
    found = next((name for name in references if name.rpartition(".")[2] == spec.architecture), None)
    if found is None:
        raise LoadError(
            f"{directory / 'config.json'}: auto_map names no class {spec.architecture!r}.",
            stage="resolve",
            hint=f"It names: {', '.join(references) or 'none'}.",
        )
    return get_class_from_dynamic_module(found, directory, local_files_only=True)
