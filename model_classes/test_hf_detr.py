"""DETR: object detection by set prediction."""

from pytest_hfaccel import ModelClassTests, main


class TestDetr(ModelClassTests):
    """DetrForObjectDetection."""

    architectures = ("Detr*",)
    default_model = "facebook/detr-resnet-50"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
