"""LLaMA: decoders with rotary positions."""

from pytest_hfaccel import ModelClassTests, main


class TestLlama(ModelClassTests):
    """LlamaForCausalLM."""

    architectures = ("Llama*",)
    default_model = "meta-llama/Llama-2-7b-hf"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
