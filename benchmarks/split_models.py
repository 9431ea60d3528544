"""Split models against the reference: text classes over two gloo processes, and with weights on the disk.

    python benchmarks/split_models.py

Each cell runs the whole battery on the tiny checkpoint of its class. The table goes into `docs/split_models.md`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "split_models.md"
BEGIN, END = "<!-- written by benchmarks/split_models.py -->", "<!-- end -->"

MODELS = (
    *("llama/LlamaForCausalLM", "mistral/MistralForCausalLM", "qwen2/Qwen2ForCausalLM", "qwen3/Qwen3ForCausalLM"),
    *("gemma/GemmaForCausalLM", "gemma2/Gemma2ForCausalLM", "gemma3_text/Gemma3ForCausalLM", "phi/PhiForCausalLM"),
    *("phi3/Phi3ForCausalLM", "gpt_neox/GPTNeoXForCausalLM", "olmo2/Olmo2ForCausalLM", "granite/GraniteForCausalLM"),
    *("cohere/CohereForCausalLM", "starcoder2/Starcoder2ForCausalLM", "glm4/Glm4ForCausalLM"),
    *("mixtral/MixtralForCausalLM", "qwen3_moe/Qwen3MoeForCausalLM", "deepseek_v3/DeepseekV3ForCausalLM"),
    *("gpt2/GPT2LMHeadModel", "opt/OPTForCausalLM", "bloom/BloomForCausalLM", "bert/BertForMaskedLM"),
    *("roberta/RobertaForMaskedLM", "distilbert/DistilBertForMaskedLM", "t5/T5ForConditionalGeneration"),
)
COLUMNS = (("cpu+tp=2", "fp32"), ("cpu+tp=2", "bf16"), ("cpu+offload", "fp32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="as --hf-model takes them")
    parser.add_argument("--cache", default="", help="where checkpoints are kept; a temporary directory when not given")
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        results = run(given.models, given.cache or temporary)
    seconds = time.perf_counter() - started
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    lines = "\n".join([BEGIN, "", *table(results, seconds), "", END])
    PAGE.write_text(head + lines + rest.partition(END)[2], encoding="utf-8")
    print(lines)
    bad = [cell.cell for cells in results.values() for cell in cells if cell.status not in ("passed", "unavailable")]
    if bad:
        sys.exit(f"neither passed nor impossible: {', '.join(bad)}")


def run(models: Any, cache: str) -> dict[str, list[Any]]:
    """Run the cells; return their records by architecture."""
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.spec import Cell, Device
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.registry import load_registry, resolve_model

    runner = Runner(RunConfig(cache=cache, weights="tiny"))
    registry = load_registry()
    results: dict[str, list[Any]] = {}
    for name in models:
        (spec,) = resolve_model(name, registry)
        weights = runner.store.choose(spec, "tiny", named=True)
        cells = [Cell(spec, Device.parse(device), dtype, weights) for device, dtype in COLUMNS]
        results[spec.architecture] = [runner.run(cell) for cell in cells]
        print(*[f"{cell.cell}: {cell.status}" for cell in results[spec.architecture]], sep="\n", file=sys.stderr)
        runner.pool.evict_idle()
    runner.close()
    return results


def table(results: dict[str, list[Any]], seconds: float) -> list[str]:
    """Return the lines of the table."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "accelerate")
    )
    return [
        f"Tiny checkpoints, {platform.system()}, {versions}; {time.strftime('%Y-%m-%d')}; "
        f"{sum(map(len, results.values()))} cells in {seconds:.0f} s. A number is the largest rel-L2 of the check "
        "`parity`, and all checks of its cell passed. *split* is the share of the parameters that are split.",
        "",
        "| class | tp=2, fp32 | tp=2, bf16 | split | offload, fp32 | on the disk | why not |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, cells) for name, cells in results.items()),
    ]


def _row(name: str, cells: list[Any]) -> str:
    parallel, lower, offloaded = cells
    details = (parallel.placement or {}).get("details", {})
    split = f"{details['split_parameters']} of {details['parameters']}" if details else "-"
    modules = (offloaded.placement or {}).get("details", {}).get("modules_by_device", {})
    disk = f"{modules['disk']} of {sum(modules.values())} parts" if "disk" in modules else "-"
    why = "; ".join(dict.fromkeys(filter(None, map(_reason, cells))))
    return f"| {name} | {_result(parallel)} | {_result(lower)} | {split} | {_result(offloaded)} | {disk} | {why} |"


def _result(cell: Any) -> str:
    if cell.status != "passed":
        return str(cell.status)
    return f"{next(check.measures['rel_l2'] for check in cell.checks if check.name == 'parity'):.1e}"


def _reason(cell: Any) -> str:
    if cell.status == "passed":
        return ""
    reason = str(next(check.reason for check in cell.checks if check.status == cell.status)).splitlines()[0]
    return reason.removeprefix(f"{cell.device}: ")


if __name__ == "__main__":
    main()
