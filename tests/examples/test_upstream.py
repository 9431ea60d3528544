"""The defects of others that our expectations rest on are still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "docs" / "upstream").glob("*.py"))
README = (SCRIPTS[0].parent / "README.md").read_text(encoding="utf-8")

EXPLAINED = {
    "fsmt_generate_without_cache": (
        "fsmt/FSMTForConditionalGeneration",
        "cpu",
        ("model hands model.decoder (FSMTDecoder): ", "decoder_causal_mask = None", "the step is right"),
        "transformers",
    ),
    "roberta_generate_positions": (
        "roberta/RobertaForCausalLM",
        "cpu",
        ("only generate hands the model: position_ids = [0, 1,", "roberta.embeddings.position_embeddings (Embedding)"),
        "transformers",
    ),
    "decision_output_loading_info": (
        "jev/JevForDecision",
        "cpu",
        ("at transformers/decision/", "decision_config = "),
        "transformers",
    ),
    "pixio_backbone_norms": (
        "pixio/PixioBackbone",
        "cpu",
        ("encoder.layernorm.bias", "layernorm.weight"),
        "transformers",
    ),
    "voxtral_realtime_text_model": (
        "voxtral_realtime_text/VoxtralRealtimeTextModel",
        "cpu",
        ("has no class 'VoxtralRealtimeTextModel'",),
        "transformers",
    ),
    "prophetnet_fp64_nan": (
        "prophetnet/ProphetNetModel",
        "cpu",
        ("First made by the reference's aten.mul.Tensor", " in encoder"),
        "",
    ),
    "paligemma_attention_depends_on_padding": (
        "colpali/ColPaliForRetrieval",
        "openvino:CPU",
        ("First divergence: vlm.language_model.layers.0.self_attn (GemmaAttention)",),
        "transformers",
    ),
    "vision_attention_export_drops_norms": (
        "glm_ocr_vision/GlmOcrVisionModel",
        "openvino:CPU",
        ("First divergence: blocks.0.attn.q_norm (GlmOcrRMSNorm)",),
        "exporter",
    ),
    "onnxscript_drops_small_eps": (
        "helium/HeliumForCausalLM",
        "onnxruntime:CPU",
        ("Operator: Reciprocal node_rsqrt", "it makes the first NaN or infinity"),
        "exporter",
    ),
    "udop_export": ("udop/UdopModel", "openvino:CPU", ("patch_inds[rows, cols] = False",), "exporter"),
}
"""By script: model and device of the cell that shows it, what `hfaccel explain` says of its place, and the cause."""


def test_every_script_is_listed() -> None:
    assert [script.name for script in SCRIPTS if f"]({script.name})" not in README] == []


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_defect_is_still_there(script: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    last = (done.stdout.splitlines() or [done.stderr])[-1]
    assert last.startswith("DEFECT"), f"{script.name} says {last!r}: delete it, and what expected.yaml says about it"


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("defect", EXPLAINED)
def test_explain_finds_the_same_place(defect: str) -> None:
    model, device, places, cause = EXPLAINED[defect]
    command = [sys.executable, "-m", "pytest_hfaccel", "explain", model, "--device", device, "--weights", "tiny"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert [place for place in places if place not in done.stdout] == [], done.stdout + done.stderr
    assert f"\nCause: {cause} (" in done.stdout if cause else "\nCause: undecided" in done.stdout
    assert done.returncode == 1


def test_every_defect_is_explained_or_said_not_to_be() -> None:
    stated = {
        line.split("`")[1]: line for line in README.partition("## What")[2].splitlines() if line.startswith("| `")
    }
    assert stated.keys() == {script.stem for script in SCRIPTS}
    assert {name for name, line in stated.items() if not line.rstrip(" |").endswith("| no")} == EXPLAINED.keys()
