"""CLIP: images and text in one space."""

from pytest_hfaccel import ModelClassTests, main


class TestClip(ModelClassTests):
    """CLIPModel."""

    architectures = ("CLIP*",)
    default_model = "openai/clip-vit-base-patch32"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
