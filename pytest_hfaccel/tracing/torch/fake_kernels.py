"""What fake tensors cannot do although the model needs it: answers that depend on a mask, and operators they lack.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily


def run(func: Any, name: str, args: Any, kwargs: Any, arguments: Sequence[torch.Tensor]) -> Any:
    """Run an operator.

    What only concerns real tensors runs for real among fake ones, too: models ask whether a mask leaves anything out,
    and take another way if it does. So does what makes a mask where a model was given none: ones of (batch, tokens) or
    (batch, height, width). On fake tensors some operators run by the stand-ins of this file.

    Args:
        func: The operator.
        name: Its name without namespace and overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        arguments: The tensors among both.
    """
    has_fakes = any(isinstance(tensor, FakeTensor) for tensor in arguments)
    makes_mask = name == "ones" and len(args[0]) in (2, 3)
    if makes_mask or (arguments and not has_fakes):
        with unset_fake_temporarily():
            return func(*args, **kwargs)
    stand_in = _STAND_INS.get(name) if has_fakes else None
    return (stand_in or func)(*args, **kwargs)


def _grouped_mm(rows: Any, matrices: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    """The products of mixtures of experts: torch's own fake version only knows bf16, the CPU all dtypes."""
    del bias
    groups: tuple[int, ...] = ()
    if rows.dim() == matrices.dim():
        groups = (offs.shape[0] if rows.dim() == 2 else rows.shape[0],)
    return rows.new_empty((*groups, rows.shape[-2], matrices.shape[-1]), dtype=out_dtype or rows.dtype)


_STAND_INS: dict[str, Callable[..., Any]] = {"_grouped_mm": _grouped_mm}
