"""What is the same for all executions of one of torch's operators.

Imports torch: import this file late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pytest_hfaccel.tracing.torch.traffic import ALIASES

_GROUPS = {"convolution": 8, "convolution_backward": 9}
"""Operator -> the position of the number of groups among its arguments."""

_BOOKKEEPING = frozenset({"prim", "profiler"})
"""Namespaces of operators that only Python and the profiler need: they ask for a tensor's device, or mark a moment."""


@dataclass(frozen=True)
class Kind:
    """An operator as torch declares it.

    Attributes:
        name: Without namespace and overload.
        packet: torch's object for all its overloads.
        is_view: Whether it returns its argument's memory.
        is_bookkeeping: Whether it does nothing to tensors.
        changed: Names and positions of the arguments it changes in place.
    """

    name: str
    packet: Any = field(compare=False)
    is_view: bool
    is_bookkeeping: bool
    changed: tuple[tuple[str, int], ...]

    def changed_of(self, args: Any, kwargs: Any) -> list[Any]:
        """Return the arguments of an execution that it changed in place."""
        return [args[index] if index < len(args) else kwargs.get(name) for name, index in self.changed]

    def groups_of(self, args: Any) -> int:
        """Return the groups of a convolution; 1 for all else."""
        return int(args[_GROUPS[self.name]]) if self.name in _GROUPS else 1


@cache
def kind_of(func: Any) -> Kind:
    """Return the kind of an operator, as `__torch_dispatch__` gets it."""
    packet = func._overloadpacket
    name = str(packet.__name__)
    arguments = enumerate(func._schema.arguments)
    changed = [(one.name, index) for index, one in arguments if one.alias_info and one.alias_info.is_write]
    return Kind(name, packet, bool(func.is_view) or name in ALIASES, func.namespace in _BOOKKEEPING, tuple(changed))
