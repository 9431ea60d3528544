"""GPT-2 and its descendants: decoders with learned positions."""

from pytest_hfaccel import ModelClassTests, main


class TestGpt(ModelClassTests):
    """GPT2LMHeadModel and its descendants."""

    architectures = ("GPT2*", "GPTNeo*", "GPTJ*", "GPTBigCode*", "OpenAIGPT*")
    default_model = "gpt2"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
