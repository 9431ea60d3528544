"""Qwen: decoders with rotary positions and grouped-query attention."""

from pytest_hfaccel import ModelClassTests, main


class TestQwen(ModelClassTests):
    """Qwen2ForCausalLM and its successors."""

    architectures = ("Qwen2For*", "Qwen2Model", "Qwen2Moe*", "Qwen3For*", "Qwen3Model", "Qwen3Moe*")
    default_model = "Qwen/Qwen2-0.5B"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
