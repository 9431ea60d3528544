"""A model that predictions are made for. Plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class NamedModel:
    """A model as far as predictions need to know it.

    Attributes:
        name: What the user called it.
        origin: Where class and dimensions come from, or why they are not known; half a sentence.
        family: The classifier's family, or the one the user stated; empty where neither knows.
        architecture: transformers class; empty where the dimensions are not known.
        dims: Config fields that differ from the class's default config.
        is_assumed: Whether the dimensions are not those of the model itself.
        measured_names: Names under which rows of it can be in a database, the most likely one first.
        parameters: Number of parameters, where it is stated.
        requires_remote_code: Whether the class is the checkpoint's own code.
        default_class: The class whose default config could stand in for dimensions that are not known.
    """

    name: str
    origin: str
    family: str = ""
    architecture: str = ""
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    is_assumed: bool = False
    measured_names: tuple[str, ...] = ()
    parameters: int | None = None
    requires_remote_code: bool = False
    default_class: str = ""

    @property
    def dimensions(self) -> str:
        """How the dimensions are known: `known`, `assumed` (those of something else stand in) or `unknown`."""
        if not self.architecture:
            return "unknown"
        return "assumed" if self.is_assumed else "known"

    @property
    def canonical(self) -> str:
        """The name its rows most likely have: the registered one where it is registered."""
        return self.measured_names[0] if self.measured_names else self.name

    @cached_property
    def key(self) -> str:
        """What makes two models the same to a trace: class and dimensions."""
        return json.dumps([self.architecture, self.dims], sort_keys=True, default=str)
