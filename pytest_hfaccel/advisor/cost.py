"""The computed cost of an architecture: plain numbers, without a device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pytest_hfaccel.tracing.trace import PRECISIONS, ModelTrace, precision_of

_FP32 = PRECISIONS["fp32"].activation


@dataclass(frozen=True)
class RunCost:
    """What a forward pass takes besides the weights, in fp32.

    Attributes:
        fixed_bytes: Bytes of activations alive at the peak that do not depend on the batch.
        bytes_per_sample: Bytes of activations alive at the peak, per sample.
        output_bytes_per_sample: Bytes of the outputs per sample, caches included.
        flops_per_sample: Floating-point operations per sample (a multiplication and an addition count as two).
        multiplied_bytes: Bytes of the weights that go into matrix products and convolutions. Runtimes that bring
            those into a layout of their own hold them twice; tables of embeddings they do not.
    """

    fixed_bytes: int
    bytes_per_sample: int
    output_bytes_per_sample: int
    flops_per_sample: int
    multiplied_bytes: int

    @classmethod
    def from_traces(cls, one: ModelTrace, two: ModelTrace) -> RunCost:
        """Compute the cost from traces in fp32 at batches 1 and 2: activations grow linearly with the batch."""
        per_sample = max(0, two.activation_bytes - one.activation_bytes)
        return cls(
            fixed_bytes=max(0, one.activation_bytes - per_sample),
            bytes_per_sample=per_sample,
            output_bytes_per_sample=one.output_bytes,
            flops_per_sample=one.flops,
            multiplied_bytes=one.multiplied_bytes,
        )


@dataclass(frozen=True)
class ArchitectureCost:
    """What a model of given dimensions holds, and what running it takes.

    Attributes:
        parameters: Number of parameters, shared ones counted once.
        buffer_bytes: Bytes of the buffers in memory.
        stored_buffer_bytes: Bytes of those buffers that a checkpoint holds.
        length: Tokens per sample in the forward pass that was traced.
        run: What a forward pass takes; `None` when it could not be traced.
        problem: Why `run` is `None`, else empty.
    """

    parameters: int
    buffer_bytes: int
    stored_buffer_bytes: int
    length: int
    run: RunCost | None
    problem: str = ""

    @classmethod
    def from_traces(cls, one: ModelTrace, two: ModelTrace) -> ArchitectureCost:
        """Compute the cost from traces in fp32 at batches 1 and 2."""
        run = RunCost.from_traces(one, two)
        return cls(one.parameters, one.buffer_bytes, one.stored_buffer_bytes, one.length, run)

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of parameters at a dtype and of buffers as they are."""
        return self._parameter_bytes(dtype) + self.buffer_bytes

    def disk_bytes(self, dtype: str) -> int:
        """Bytes of a checkpoint's weights at a dtype; its header and the tokenizer's files are small beside them."""
        return self._parameter_bytes(dtype) + self.stored_buffer_bytes

    def multiplied_bytes(self, dtype: str) -> int:
        """Bytes of the weights that go into matrix products; all of them where that is not known."""
        if self.run is None:
            return self.weight_bytes(dtype)
        return self.run.multiplied_bytes * precision_of(dtype).weight // _FP32

    def _parameter_bytes(self, dtype: str) -> int:
        """Bytes of the parameters: int8 rounds those of matrix products only, and leaves fp32 to the others."""
        multiplied = min(self.run.multiplied_bytes // _FP32 if self.run else 0, self.parameters)
        precision = precision_of(dtype)
        return multiplied * precision.weight + (self.parameters - multiplied) * precision.activation

    def activation_bytes(self, dtype: str, batch: int) -> int:
        """Bytes of activations at the peak of a forward pass; 0 where that is not known."""
        if self.run is None:
            return 0
        # Integers and what models compute in fp32 at any dtype are a small part: all of it scales with the dtype.
        fp32 = self.run.fixed_bytes + batch * self.run.bytes_per_sample
        return fp32 * precision_of(dtype).activation // _FP32

    def output_bytes(self, dtype: str, batch: int) -> int:
        """Bytes of the outputs of a forward pass, which are part of the activations; 0 where that is not known."""
        if self.run is None:
            return 0
        return batch * self.run.output_bytes_per_sample * precision_of(dtype).activation // _FP32

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArchitectureCost:
        """Rebuild a cost from what `to_json` returned."""
        run = data["run"]
        return cls(**{**data, "run": RunCost(**run) if run else None})
