"""Wav2Vec2: speech encoders over the raw waveform."""

from pytest_hfaccel import ModelClassTests, main


class TestWav2Vec2(ModelClassTests):
    """Wav2Vec2ForCTC and its other heads."""

    architectures = ("Wav2Vec2*",)
    default_model = "facebook/wav2vec2-base-960h"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
