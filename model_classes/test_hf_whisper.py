"""Whisper: speech to text, encoder-decoder."""

from pytest_hfaccel import ModelClassTests, main


class TestWhisper(ModelClassTests):
    """WhisperForConditionalGeneration."""

    architectures = ("Whisper*",)
    default_model = "openai/whisper-tiny"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
