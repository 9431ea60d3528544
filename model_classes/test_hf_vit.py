"""ViT and DeiT: image classifiers over patches."""

from pytest_hfaccel import ModelClassTests, main


class TestVit(ModelClassTests):
    """ViTForImageClassification, DeiTForImageClassification."""

    architectures = ("ViT*", "DeiT*")
    default_model = "google/vit-base-patch16-224"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
