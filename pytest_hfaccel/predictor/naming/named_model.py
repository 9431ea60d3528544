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
        family: The classifier's family, or the one the user stated.
        origin: Where class and dimensions come from, or why they are not known; half a sentence.
        architecture: transformers class; empty where it is not known.
        dims: Config fields that differ from the class's default config.
        is_assumed: Whether the dimensions are not those of the model itself.
        measured_names: Names under which rows of it can be in a database, the most likely one first.
        parameters: Number of parameters, where it is stated.
    """

    name: str
    family: str
    origin: str
    architecture: str = ""
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    is_assumed: bool = False
    measured_names: tuple[str, ...] = ()
    parameters: int | None = None

    @property
    def canonical(self) -> str:
        """The name its rows most likely have: the registered one where it is registered."""
        return self.measured_names[0] if self.measured_names else self.name

    @cached_property
    def key(self) -> str:
        """What makes two models the same to a trace: class and dimensions."""
        return json.dumps([self.architecture, self.dims], sort_keys=True, default=str)
