"""Splitting a model over devices: the formulas against the numbers of the papers, and the choice among the ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_hfaccel.core.prediction import Estimate
from pytest_hfaccel.predict.distributed import (
    Blocks,
    Cluster,
    Layout,
    Workload,
    blocks_of,
    describe_plan,
    device_memory,
    in_words,
    layouts,
    plan,
)
from pytest_hfaccel.tracing.trace import ModelTrace
from tests.unit.predictor_samples import GIB, block_trace

BLOCKS = Blocks(layers=12, width=768, heads=12, tokens=128)
CLUSTER = Cluster(8, 80 * GIB, 450e9, 50e9, 8, 1e-5, "NVLink")
GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12}


def states_of_zero() -> ModelTrace:
    """The model of ZeRO's figure 1: 7.5 billion parameters, mixed precision with Adam, no activations."""
    trace = block_trace("GPT2LMHeadModel", {}, batch=1, length=1, dtype="fp16", training=True)
    parameters = 7_500_000_000
    optimizer = 12 * parameters
    return replace(
        trace,
        parameters=parameters,
        weight_bytes=2 * parameters,
        optimizer_bytes=optimizer,
        activation_bytes=optimizer + 2 * parameters,
    )


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_sharded_states_are_those_of_zeros_figure_1(stage: int, gigabytes: float) -> None:
    found = device_memory(states_of_zero(), BLOCKS, Layout(data=64, shards=stage))
    assert found.total / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_tensor_and_pipeline_parallelism_divide_all_states() -> None:
    one = device_memory(states_of_zero(), BLOCKS, Layout())
    split = device_memory(states_of_zero(), BLOCKS, Layout(tensor=4, pipeline=2, micro_batches=2))
    assert split.total == pytest.approx(one.total / 8)


def test_activations() -> None:
    small, trace = (block_trace("GPT2LMHeadModel", GPT2, batch=b, length=128, training=True) for b in (1, 8))
    # With few samples the peak is where all gradients are, with many where all activations are.
    kept = device_memory(small, BLOCKS, Layout()).activations
    assert kept == small.activation_bytes - small.optimizer_bytes - 4 * small.parameters
    kept = device_memory(trace, BLOCKS, Layout()).activations
    assert kept == trace.activation_bytes - trace.optimizer_bytes
    # 10 of the 34 parts of a block's activations are on every device (arXiv 2205.05198, equation 2).
    assert device_memory(trace, BLOCKS, Layout(tensor=8)).activations == pytest.approx(kept * (10 + 24 / 8) / 34)
    assert device_memory(trace, BLOCKS, Layout(recompute=True)).activations < kept / 2
    # A stage keeps the activations of as many micro-batches as there are stages: as much as without a pipeline.
    assert device_memory(trace, BLOCKS, Layout(pipeline=4, micro_batches=8)).activations == pytest.approx(kept)


def test_a_ring_all_reduce() -> None:
    # 2 (n - 1) / n of a gigabyte at 450 GB/s, and the start of the operator.
    assert CLUSTER.all_reduce(1e9, 8) == pytest.approx(2 * 7 / 8 / 450 + 1e-5)
    assert CLUSTER.gather(1e9, 8, times=2) == pytest.approx(2 * (7 / 8 / 450 + 1e-5))
    assert CLUSTER.all_reduce(1e9, 1) == CLUSTER.gather(1e9, 1) == 0.0
    assert CLUSTER.all_reduce(1e9, 8, span=64) == pytest.approx(2 * 7 / 8 / 50 + 1e-5)


def test_the_shape_of_a_model_is_in_its_trace() -> None:
    trace = block_trace("GPT2LMHeadModel", GPT2, batch=3, length=40)
    assert blocks_of(trace) == Blocks(12, 768, 12, 40)
    without = replace(trace, operators=tuple(one for one in trace.operators if "attention" not in one.name))
    assert blocks_of(without).width in (768, 8 * 768)
    assert blocks_of(replace(trace, operators=())).layers == 1


@pytest.mark.parametrize("devices", [1, 2, 6, 8, 12])
@pytest.mark.parametrize("training", [True, False])
def test_layouts_use_all_devices(devices: int, training: bool) -> None:
    found = list(layouts(devices, batch=16, training=training, layers=12, heads=12, per_machine=8))
    assert found
    for layout in found:
        assert layout.devices == devices
        assert 12 % layout.tensor == 0
        assert layout.data <= 16
        assert training or not (layout.shards or layout.recompute)
    assert len(set(found)) == len(found)


def work(training: bool = True, milliseconds: float = 100.0, dims: dict[str, int] | None = None) -> Workload:
    """A workload that takes so long per sample."""

    def trace_at(batch: int) -> ModelTrace:
        return block_trace("GPT2LMHeadModel", dims or GPT2, batch=batch, length=128, dtype="bf16", training=training)

    def milliseconds_at(batch: int) -> Estimate:
        value = milliseconds * batch
        return Estimate(value, 0.7 * value, 1.5 * value)

    return Workload(trace_at, milliseconds_at, lambda _: 0.0, training, "bf16")


def test_a_small_model_is_copied() -> None:
    plans = plan(work(), CLUSTER, 64)
    assert plans[0].fits
    assert plans[0].layout.strategy(training=True) == "DDP x8".replace(" x8", "")
    assert plans[0].step_ms.value == pytest.approx(800.0, rel=0.05)
    assert plans[0].step_ms.low < plans[0].step_ms.value < plans[0].step_ms.high


def test_a_large_model_is_sharded_or_split() -> None:
    large = {"n_embd": 6144, "n_layer": 48, "n_head": 64}
    plans = plan(work(dims=large), CLUSTER, 8)
    chosen = plans[0]
    assert chosen.fits
    assert chosen.layout.shards or chosen.layout.tensor > 1 or chosen.layout.pipeline > 1
    assert chosen.memory.total <= 0.9 * CLUSTER.memory_bytes
    copies = next(each for each in plans if each.layout == Layout(data=8))
    assert not copies.fits


def test_what_fits_nowhere_names_the_way_that_lacks_least() -> None:
    small = replace(CLUSTER, memory_bytes=GIB // 8)
    plans = plan(work(), small, 8)
    assert not plans[0].fits
    assert plans[0].memory.total == min(each.memory.total for each in plans)
    assert "does not fit 8 devices in any of" in in_words(plans, small, training=True, name="gpt2")


def test_a_slow_link_makes_tensor_parallelism_unattractive() -> None:
    slow = replace(CLUSTER, link_bytes_per_second=1e8)
    fast_share, slow_share = (
        next(
            each for each in plan(work(training=False), cluster, 8) if each.layout.tensor == 4 and each.layout.data == 2
        )
        for cluster in (CLUSTER, slow)
    )
    assert slow_share.communication_ms > 100 * fast_share.communication_ms
    assert slow_share.step_ms.value > fast_share.step_ms.value


def test_a_pipeline_idles_less_with_more_micro_batches() -> None:
    plans = plan(work(), CLUSTER, 64)
    times = {
        each.layout.micro_batches: each.compute_ms
        for each in plans
        if each.layout.pipeline == 4 and each.layout.data == 2 and not each.layout.recompute and not each.layout.shards
    }
    assert times[1] > times[4] > times[16]
    # GPipe: (stages - 1) / micro-batches more than without idling.
    assert times[16] == pytest.approx(100.0 * 64 / 8 * (1 + 3 / 16), rel=0.1)


@pytest.mark.parametrize("training", [True, False])
def test_more_devices_need_no_more_memory_each(training: bool) -> None:
    best = [
        min(each.memory.total for each in plan(work(training), replace(CLUSTER, devices=devices), 64))
        for devices in (1, 2, 4, 8, 16)
    ]
    assert best == sorted(best, reverse=True)


def test_a_plan_in_json_and_words() -> None:
    plans = plan(work(), CLUSTER, 64)
    described = describe_plan(plans[0], CLUSTER, training=True, alone_ms=6400.0)
    assert described["strategy"] == "DDP"
    assert described["global_batch_size"] == 64
    assert described["per_gpu_batch_size"] == 8
    assert described["scaling_efficiency"] == pytest.approx(1.0, abs=0.05)
    memory = described["memory_per_device_gb"]
    parts = ("parameters_gb", "gradients_gb", "optimizer_gb", "activations_gb")
    assert sum(memory[name] for name in parts) == pytest.approx(memory["per_gpu_gb"])
    text = in_words(plans, CLUSTER, training=True, name="gpt2")
    assert text.startswith("DDP on 8 devices: ")
    assert "NVLink" in text
