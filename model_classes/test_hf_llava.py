"""LLaVA and LLaVA-Next: language models that see."""

from pytest_hfaccel import ModelClassTests, main


class TestLlava(ModelClassTests):
    """LlavaForConditionalGeneration, LlavaNextForConditionalGeneration."""

    architectures = ("LlavaFor*", "LlavaModel", "LlavaNextFor*", "LlavaNextModel")
    default_model = "llava-hf/llava-1.5-7b-hf"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
