"""SAM: promptable segmentation."""

from pytest_hfaccel import ModelClassTests, main


class TestSam(ModelClassTests):
    """SamModel."""

    architectures = ("Sam*",)
    default_model = "facebook/sam-vit-base"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
