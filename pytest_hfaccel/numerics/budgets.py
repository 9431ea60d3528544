"""What a dtype must cost a model: the reference run again with the rounding of that dtype emulated (Monte Carlo).

Every arithmetic result of a pass of the reference gets a random error as large as rounding to the dtype makes it; the
weights and the inputs are rounded themselves. The outputs' distance from the exact ones is then what honest arithmetic
in that dtype costs *this* model on *these* inputs, whatever the hardware. docs/tolerances.md has the measurements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.numerics.compare import difference

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

RUNS = 6
"""Emulated passes per dtype. The largest error among n of them is exceeded by the next honest one with probability
1 / (n + 1)."""

MANY_RUNS = 30
"""Passes before an error is called wrong that is no larger than `ALLOWED_FACTOR` allows: where none of them is beyond
the limit either, honest arithmetic is at most once in 31 times, even for the model that is worst in this respect."""

FEW_RUNS = 2
"""Passes for a failure of a model that is not small: six cost as much as 17 to 30 passes of the reference, which would
more than double what the cell costs; how many times too large an error is takes no better estimate."""

ALLOWED_FACTOR = 4.0
"""With `enforce`, an error of at most this many times the largest emulated one passes.

Tuned: a little over twice the largest ratio of the honest cells that docs/tolerances.md lists."""

FURTHER_INPUTS = 8
"""With `enforce`, so many other inputs are tried at most for an output that could not be judged on those before."""

ALLOWED_ON_AVERAGE = 1.5
"""An output that no input can judge is still wrong if its errors are more than this many times what the dtype costs on
average: the geometric mean, over inputs, of error to typical emulated error.

Measured: 0.86 to 1.10 for the IoU scores of 40 SAM models in bf16, 10 inputs each (docs/tolerances.md)."""

LEAST_INPUTS_OF_AVERAGE = 5
"""Of fewer inputs the mean says little: that of single inputs goes up to 2.5."""

_BITS = {"fp32": 24, "fp16": 11, "bf16": 8}
"""Binary digits of a number, the leading one included."""

_FILL = 1e8
"""A number beyond this is no result: models fill forbidden positions with it."""

_MEAN_MANTISSA = 0.7355
"""Rounding is off by up to half a unit of the last digit, which is 2^-p of a mantissa of 1 and half as much of one of
2. The root mean square of 1/m over mantissas m in [1, 2) that are log-uniform is sqrt(3 / (8 ln 2))."""

_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1, "mv": 0, "addmv": 1, "matmul": 0, "linear": 0}
"""Matrix products, and which argument is their left factor."""

_OTHER_SUMS = ("conv", "_conv", "mkldnn_conv", "_slow_conv", "thnn_conv", "einsum", "bilinear", "dot", "vdot")
"""What the names of other operators that sum products begin with."""

_FUSED_IN_FP32 = {
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"), 2.7),
    **dict.fromkeys(("native_group_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), 2.7),
    **dict.fromkeys(("cudnn_batch_norm", "lstm", "gru", "lstm_cell", "gru_cell", "log_softmax", "_log_softmax"), 2.7),
    **dict.fromkeys(("gelu", "silu", "silu_", "mish", "elu", "softplus", "logsumexp", "softmax", "_softmax"), 3.0),
    **dict.fromkeys(("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"), 3.4),
}
"""Operators that do several steps in one: their error in fp32 in multiples of one rounding.

Measured, operator by operator, on torch's CPU: layer_norm 2.3 to 2.9, gelu 2.4 to 3.5, attention 2.5 to 3.4; the others
by analogy. In 16 bits such an operator computes in fp32 inside, and rounds once."""

_EXACT = frozenset(
    {
        *("abs", "neg", "relu", "relu_", "clamp", "clamp_min", "clamp_max", "hardtanh", "sign", "sgn", "ceil", "floor"),
        *("round", "trunc", "max", "min", "amax", "amin", "maximum", "minimum", "sort", "topk", "kthvalue", "median"),
        *("clone", "copy", "copy_", "contiguous", "lift_fresh", "lift_fresh_copy", "alias_copy", "empty", "empty_like"),
        *("full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "new_zeros", "new_ones", "new_full", "eye"),
        *("new_empty", "empty_strided", "new_empty_strided", "arange", "scalar_tensor", "zero_", "fill_", "fill"),
        *("cat", "stack", "repeat", "repeat_interleave", "roll", "flip", "tril", "triu", "where", "masked_fill"),
        *("masked_fill_", "masked_scatter", "index", "index_select", "index_put", "index_put_", "index_copy", "gather"),
        *("scatter", "scatter_", "embedding", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "pad"),
        *("replication_pad1d", "replication_pad2d", "max_pool1d", "max_pool2d_with_indices", "im2col", "unfold_copy"),
        *("threshold", "diag_embed", "one_hot", "uniform_", "normal_", "random_", "bernoulli_", "nan_to_num"),
        *("pixel_unshuffle", "channel_shuffle", "view_copy", "select_scatter", "slice_scatter"),
        *("dropout", "dropout_", "feature_dropout", "alpha_dropout", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"),
        *("meshgrid", "broadcast_tensors", "concat", "concatenate", "hstack", "vstack", "tile", "take_along_dim"),
        *("cartesian_prod", "flatten_dense_tensors", "adaptive_max_pool1d", "pixel_shuffle", "rot90"),
        *("upsample_nearest1d", "upsample_nearest2d", "bitwise_not", "logical_not", "masked_select", "unique_dim"),
    }
)
"""Operators of ATen that move numbers, choose among them or make them exactly."""


@dataclass(frozen=True)
class BudgetRequest:
    """What the checks `parity` and `canary` are asked beyond one comparison with the table.

    Attributes:
        when: `off`, `failures` (for a parity that failed), `report` (for every parity) or `enforce` (as its limit).
        samples: How many inputs are compared: the sample's, and others drawn from seeds.
        power: Whether `canary` searches for the smallest fault that the cell notices.
    """

    when: str = "failures"
    samples: int = 1
    power: bool = False


@dataclass(frozen=True)
class Budget:
    """What a dtype must cost, by leaf.

    Attributes:
        dtype: The dtype.
        costs: The largest emulated rel-L2 by floating-point leaf; none for a leaf that no rounding reaches.
        reason: Why there is none; empty where there is one.
        largest: The largest emulated absolute error of any number, for the same leaves.
        runs: The number of passes.
        typical: The root mean square of the emulated rel-L2 over the passes, for the same leaves.
    """

    dtype: str
    costs: Mapping[str, float]
    reason: str = ""
    largest: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0
    typical: Mapping[str, float] = field(default_factory=dict)

    def ratios(self, errors: Mapping[str, float]) -> dict[str, float]:
        """Divide real errors (rel-L2 by leaf) by what the dtype must cost; leaves without a budget are left out."""
        return {name: error / self.costs[name] for name, error in errors.items() if self.costs.get(name)}


def emulate(dtype: str, model: Any, forward: Callable[[], Tensors], exact: Tensors, runs: int = RUNS) -> Budget:
    """Measure what rounding to a dtype costs a model.

    Args:
        dtype: `fp32`, `fp16` or `bf16`.
        model: The torch model of the reference; its weights are rounded meanwhile.
        forward: Runs it on the sample, and gives its outputs at real positions.
        exact: Those without rounding.
        runs: How many passes; their random numbers are seeded.
    """
    import torch

    found: dict[str, list[float]] = defaultdict(list)
    largest: dict[str, float] = {}
    with _rounded_weights(model, dtype):
        for seed in range(runs):
            with _rounding_mode(dtype, torch.Generator().manual_seed(seed)):
                outputs = forward()
            for name, leaf in exact.items():
                if not leaf.is_floating_point() or name not in outputs:
                    continue
                measured = difference(name, outputs[name], leaf)
                if not measured.problem:
                    found[name].append(measured.rel_l2)
                    largest[name] = max(largest.get(name, 0.0), measured.max_abs)
    if not found:
        return Budget(dtype, {}, "no output with floating-point numbers is comparable under rounding")
    costs = {name: max(errors) for name, errors in found.items()}
    typical = {name: (sum(error**2 for error in errors) / len(errors)) ** 0.5 for name, errors in found.items()}
    return Budget(dtype, costs, largest=largest, runs=runs, typical=typical)


def round_to(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return a floating-point tensor with the nearest numbers of a dtype, in its own dtype; others as they are."""
    return tensor.to(_kinds()[dtype]).to(tensor.dtype) if tensor.is_floating_point() else tensor


def _kinds() -> dict[str, torch.dtype]:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@contextmanager
def _rounded_weights(model: Any, dtype: str) -> Iterator[None]:
    """Round parameters and buffers for a `with` block; those that share memory still do."""
    import torch

    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    before = []
    with torch.no_grad():
        for tensor in tensors:
            rounded = round_to(tensor, dtype)
            if not torch.equal(rounded, tensor):
                before.append((tensor, tensor.detach().clone()))
                tensor.copy_(rounded)
        try:
            yield
        finally:
            for tensor, original in before:
                tensor.copy_(original)


def _rounding_mode(dtype: str, generator: torch.Generator) -> Any:
    """Return a dispatch mode under which every arithmetic result has a random error of the size of rounding.

    The error is uniform and relative. In fp32 a matrix product has a larger one: its sums are rounded as often as there
    are terms, whereas 16-bit formats are summed in fp32 on every device here. The error of a sum of K products in fp32
    is sqrt(K/2) roundings of a typical partial sum, whose size is the root of the sum of the squared products.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    unit = _MEAN_MANTISSA * 2.0 ** -_BITS[dtype]
    sums_in_dtype = dtype == "fp32"

    def uniform(like: torch.Tensor) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float64).mul_(2 * unit).sub_(unit)

    def error_of(name: str, arguments: Any, result: torch.Tensor) -> torch.Tensor:
        if not sums_in_dtype:
            return uniform(result) * result
        error = uniform(result) * result * _FUSED_IN_FP32.get(name, 1.0)
        terms, size = _sum_of_products(name, arguments, result)
        return error + uniform(result) * size * (terms / 2) ** 0.5 if terms else error

    def is_rounded(name: str, arguments: Any, result: Any) -> bool:
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return False
        if name in ("_to_copy", "to", "type_as"):  # from fp32 back to the dtype of the model: that is where it rounds
            source = arguments[0].dtype
            return bool(source.is_floating_point and source != result.dtype and result.dtype == torch.float64)
        if result.dtype == torch.float32 and not sums_in_dtype:  # the model's code computes this in fp32 at any dtype
            return False
        return name not in _EXACT

    def without_exact(error: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
        """Leave alone what the dtype holds exactly (pixels at .5, doubled), and numbers that mean "never"."""
        exact = result.to(_kinds()[dtype]) == result
        return error.masked_fill_(exact | ~(result.abs() < _FILL), 0.0)

    class RoundingMode(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            results = output if isinstance(output, tuple | list) else (output,)
            rounded = []
            for result, declared in zip(results, _declared(function, len(results)), strict=False):
                alias = None if name in ("to", "type_as") else declared.alias_info
                is_view = alias is not None and not alias.is_write
                if is_view or not is_rounded(name, args, result):
                    rounded.append(result)
                    continue
                error = without_exact(error_of(name, args, result), result)
                # An operator in place returns its argument, which callers compare by identity.
                rounded.append(result.add_(error) if alias is not None else (result + error).to(result.dtype))
            return type(output)(rounded) if isinstance(output, tuple | list) else rounded[0] if rounded else output

    return RoundingMode()


def _declared(function: Any, count: int) -> list[Any]:
    """Return the schema's results, one per tensor: a list of tensors is declared once."""
    declared = list(function._schema.returns)
    return declared if len(declared) == count else declared[:1] * count


def _sum_of_products(name: str, arguments: Any, result: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return how many products are summed for each number of a result, and the root of the sum of their squares.

    There are 0 where the operator is no sum of products. The sizes are those of the result itself where computing them
    would take as long as the operator once more for little: products whose signs are random add up to that.
    """
    import torch

    size = result.double().abs()
    if name in _PRODUCTS:
        at = _PRODUCTS[name]
        left, right = arguments[at].double().square(), arguments[at + 1].double().square()
        if name == "linear":
            right = right.transpose(-1, -2)
        return int(left.shape[-1]), torch.matmul(left, right).sqrt_()
    if name.startswith(_OTHER_SUMS):
        if name.startswith(("einsum", "dot", "vdot", "bilinear")):
            operands = arguments[1] if name.startswith("einsum") else arguments
            return int(operands[0].shape[-1]), size
        return int(arguments[1][0].numel()), size
    return 0, size
