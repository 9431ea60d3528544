"""X-CLIP: videos and text in one space."""

from pytest_hfaccel import ModelClassTests, main


class TestXClip(ModelClassTests):
    """XCLIPModel."""

    architectures = ("XCLIP*",)
    default_model = "microsoft/xclip-base-patch32"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
