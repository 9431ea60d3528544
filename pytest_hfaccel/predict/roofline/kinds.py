"""Which measured operator stands for which operator of torch's: tables."""

from __future__ import annotations

MATRIX = {"addmm": 1, "mm": 0, "_int_mm": 0, "linear": 0}
"""Products of a matrix with weights, and the position of the first factor among the tensor arguments."""

BATCHED = {"bmm": 0, "baddbmm": 1, "_grouped_mm": 0}
"""Products of batches of matrices, and the position of the first factor."""

NOTHING = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_zeros", "arange", "scalar_tensor", "lift_fresh"),
        *("full", "zeros", "ones", "detach", "alias", "_local_scalar_dense"),
    }
)
"""Operators whose time is that of the call: what they write is small, or written by the next one."""

_KINDS = {
    "gelu": "gelu gelu_backward silu silu_backward erf exp log sin cos pow sigmoid hardswish mish softplus elu "
    "hardsigmoid rsqrt sqrt reciprocal atan log1p expm1 _fft_c2c _fft_r2c _fft_c2r bucketize",
    "tanh": "tanh tanh_backward",
    "copy": "copy_ _to_copy cat embedding constant_pad_nd stack slice_backward select_backward slice_scatter "
    "embedding_dense_backward reflection_pad1d flip",
    "permute": "clone repeat roll im2col col2im unfold_backward _unsafe_view",
    "gather": "gather index index_put_ index_select scatter scatter_ sort topk scatter_add_ index_add_",
    "masked": "where masked_fill masked_fill_ tril triu",
    "layer_norm": "native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward "
    "_fused_rms_norm linalg_vector_norm",
    "batch_norm": "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "native_batch_norm_backward cudnn_batch_norm",
    "softmax": "_softmax _log_softmax _safe_softmax _softmax_backward_data _log_softmax_backward_data cumsum",
    "mean": "mean sum amax amin var var_mean max min any all argmax argmin prod norm",
    "pool": "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d avg_pool1d max_pool2d upsample_bilinear2d "
    "upsample_nearest2d upsample_bicubic2d upsample_linear1d grid_sampler_2d _upsample_bicubic2d_aa "
    "_upsample_bilinear2d_aa",
}

KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""Kind of calibration by operator name; what is missing counts as an addition, or in place where it ends in `_`."""

GROUPS = ("matrix", "bmm", "attention", "conv", "depthwise", "norm", "softmax", "activation", "copy", "other", "view")
"""The groups whose times are told apart, in the order of the learned model's features."""

GROUP_OF_KIND = {
    "permute": "copy",
    "gather": "copy",
    "masked": "other",
    "linear": "matrix",
    "gelu": "activation",
    "tanh": "activation",
    "layer_norm": "norm",
    "batch_norm": "norm",
    "mean": "norm",
    "add": "other",
    "in_place": "other",
    "pool": "other",
}
"""Group by kind; a kind that is missing is a group of its own."""
