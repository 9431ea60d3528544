"""Every class of the installed transformers that no module here has anything special to say about.

`pytest model_classes/test_hf_auto.py --all-models` sweeps all of them, `::TestAuto` only the base class and the main
head of each model type. `--hf-model 'opt/*'` picks.
"""

from collections.abc import Sequence

from pytest_hfaccel import ModelClassTests, ModelSpec, main, main_pairs, other_pairs


class TestAuto(ModelClassTests):
    """The base class and the main head of each model type, and models whose class has no module."""

    default_model = "albert/AlbertForMaskedLM"
    fallback = True

    @classmethod
    def extra_models(cls) -> Sequence[ModelSpec]:
        return main_pairs()

    @classmethod
    def serves(cls, spec: ModelSpec) -> bool:
        return not TestAutoOtherHeads.serves(spec)


class TestAutoOtherHeads(ModelClassTests):
    """The other heads of each model type: what can be put on top of its base class."""

    default_model = "albert/AlbertForTokenClassification"
    fallback = True

    @classmethod
    def extra_models(cls) -> Sequence[ModelSpec]:
        return other_pairs()

    @classmethod
    def serves(cls, spec: ModelSpec) -> bool:
        return spec.name in {pair.name for pair in other_pairs()}


if __name__ == "__main__":
    raise SystemExit(main(__file__))
