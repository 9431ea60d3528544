"""T5: encoder-decoder text to text."""

from pytest_hfaccel import ModelClassTests, main


class TestT5(ModelClassTests):
    """T5ForConditionalGeneration and its variants."""

    architectures = ("T5*", "MT5*", "UMT5*", "LongT5*")
    default_model = "t5-small"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
