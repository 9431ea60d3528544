"""ViT, DeiT and ResNet: image classifiers."""

from pytest_hfaccel import ModelClassTests, main


class TestVit(ModelClassTests):
    """ViTForImageClassification, DeiTForImageClassification, ResNetForImageClassification."""

    architectures = ("ViT*", "DeiT*", "ResNet*")
    default_model = "google/vit-base-patch16-224"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
