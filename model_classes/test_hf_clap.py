"""CLAP: sound and text in one space."""

from pytest_hfaccel import ModelClassTests, main


class TestClap(ModelClassTests):
    """ClapModel."""

    architectures = ("Clap*",)
    default_model = "laion/clap-htsat-unfused"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
