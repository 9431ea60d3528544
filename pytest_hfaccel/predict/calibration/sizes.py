"""Which operators at which sizes a calibration measures: data.

The sizes cover what transformers' models do at small batches: widths from 64 to 3072, 1 to 4096 rows, vocabularies of
30,000 to 64,000 words, feature maps of 7 to 112 pixels. What lies between is interpolated, so they are spread evenly
on a logarithmic scale rather than taken from single models.
"""

from __future__ import annotations

LINEAR: tuple[tuple[int, int, int], ...] = (
    *((rows, n, k) for rows in (1, 8, 32, 128, 512) for n, k in ((128, 128), (384, 384), (768, 768))),
    *((rows, n, k) for rows in (1, 8, 32, 128, 1024) for n, k in ((1024, 256), (1536, 384), (3072, 768))),
    *((rows, n, k) for rows in (8, 32, 128, 1024) for n, k in ((256, 1024), (384, 1536), (768, 3072))),
    (1, 32000, 256),
    (1, 32000, 512),
    (32, 32000, 256),
    (128, 32000, 512),
    (256, 32000, 384),
    (1024, 32000, 128),
    (128, 50304, 768),
    (32, 30522, 128),
    (32, 30522, 256),
    (128, 30522, 256),
    (256, 30522, 512),
    (1024, 30522, 128),
    (32, 50257, 768),
    (128, 50257, 768),
    (200, 768, 192),
    (1576, 384, 384),
    (1576, 1536, 384),
    (1500, 384, 384),
    (3136, 96, 384),
    (3136, 384, 96),
    (6272, 64, 64),
    (784, 192, 768),
    (196, 64, 256),
)
"""Rows M, columns N, depth K of `x[M, K] @ w[N, K].T + b[N]`. Vocabularies come twice: as multiples of 16 and not."""

BMM: tuple[tuple[int, int, int, int], ...] = (
    (32, 32, 64, 12),
    (32, 64, 32, 12),
    (128, 128, 64, 12),
    (128, 64, 128, 12),
    (32, 32, 64, 96),
    (128, 128, 64, 96),
    (197, 197, 64, 48),
    (197, 64, 197, 12),
    (49, 49, 32, 144),
    (49, 32, 49, 144),
    (1500, 1500, 64, 6),
    (1500, 64, 1500, 6),
    (64, 49, 49, 6),
    (1, 1024, 384, 64),
)
"""Rows M, columns N, depth K, matrices."""

ATTENTION: tuple[tuple[int, int, int], ...] = (
    (16, 32, 4),
    (32, 64, 4),
    (32, 64, 12),
    (32, 64, 96),
    (50, 64, 12),
    (49, 32, 48),
    (49, 24, 128),
    (128, 32, 16),
    (128, 64, 4),
    (128, 64, 96),
    (197, 64, 3),
    (197, 64, 24),
    (512, 64, 6),
    (1024, 64, 6),
    (1500, 64, 6),
)
"""Queries (as many keys), width of a head, heads x batch."""

CONV: tuple[tuple[int, ...], ...] = (
    # batch, channels in, side, channels out, window, groups, stride
    (1, 3, 224, 64, 7, 1, 2),
    (8, 3, 224, 64, 7, 1, 2),
    (1, 3, 224, 768, 16, 1, 16),
    (1, 3, 224, 384, 16, 1, 16),
    (1, 3, 224, 768, 32, 1, 32),
    (1, 3, 128, 40, 4, 1, 4),
    (8, 3, 224, 96, 4, 1, 4),
    (1, 64, 56, 64, 3, 1, 1),
    (8, 64, 56, 64, 3, 1, 1),
    (1, 256, 56, 64, 1, 1, 1),
    (8, 64, 56, 256, 1, 1, 1),
    (1, 128, 28, 128, 3, 1, 1),
    (8, 128, 28, 128, 3, 1, 1),
    (1, 256, 14, 1024, 1, 1, 1),
    (1, 512, 7, 512, 3, 1, 1),
    (8, 512, 7, 512, 3, 1, 1),
    (1, 2048, 7, 512, 1, 1, 1),
    (1, 96, 112, 24, 1, 1, 1),
    (8, 24, 56, 144, 1, 1, 1),
    (1, 160, 14, 960, 1, 1, 1),
    (1, 320, 7, 1280, 1, 1, 1),
    (1, 64, 28, 64, 3, 8, 1),
    (1, 256, 14, 256, 3, 32, 1),
)
"""Square two-dimensional convolutions."""

DEPTHWISE: tuple[tuple[int, ...], ...] = (
    (1, 32, 112, 32, 3, 32, 1),
    (8, 32, 112, 32, 3, 32, 1),
    (1, 96, 56, 96, 7, 96, 1),
    (8, 96, 56, 96, 7, 96, 1),
    (1, 40, 56, 40, 7, 40, 1),
    (1, 192, 28, 192, 7, 192, 1),
    (1, 144, 56, 144, 3, 144, 1),
    (1, 576, 14, 576, 3, 576, 1),
)
"""Square two-dimensional convolutions with one channel per group."""

SOUND: tuple[tuple[int, ...], ...] = (
    # channels in, samples, channels out, window, groups, stride
    (1, 16000, 512, 10, 1, 5),
    (512, 3199, 512, 3, 1, 2),
    (512, 799, 512, 3, 1, 2),
    (256, 1599, 256, 3, 1, 2),
    (768, 49, 768, 128, 16, 1),
    (80, 3000, 384, 3, 1, 1),
    (768, 128, 768, 1, 4, 1),
    (768, 128, 3072, 1, 4, 1),
    (768, 128, 768, 1, 1, 1),
)
"""One-dimensional convolutions of speech models."""

NUMBERS: tuple[int, ...] = (1, 1_000, 10_000, 100_000, 500_000, 2_000_000, 8_000_000, 9_000_000, 24_000_000)
"""Sizes of the operators that move numbers: within each cache, beyond all of them, and beyond the size from which the
C library's allocator asks the system for fresh pages on every call (32 MiB at most, `M_MMAP_THRESHOLD`, mallopt(3))."""

NORMS: tuple[tuple[int, int], ...] = ((8, 64), (32, 256), (128, 768), (197, 192), (1024, 768), (8192, 768))
"""Rows and width of normalisations and softmax."""

ROW, HEAD = 1000, 50
"""Numbers of a row that is moved, and of a head in it that changes places."""
