"""Families of the user's own."""

from __future__ import annotations

from pytest_hfaccel.classify import MODEL_FAMILIES, MODEL_SUBFAMILIES, UNKNOWN, ModelFamilyClassifier
from pytest_hfaccel.classify.records import Definition

RETRIEVAL: Definition = {
    "description": "Retrieval and search models",
    "keywords": ["retrieval", "search", "index", "rag", "retrieve"],
    "tasks": ["retrieval", "dense-passage-retrieval", "document-search"],
    "methods": ["retrieve", "search", "index", "query"],
}
DPR = "facebook/dpr-ctx_encoder-single-nq-base"


def test_an_acronym_of_a_task_is_known() -> None:
    answer = ModelFamilyClassifier(model_family_defs={"retrieval": RETRIEVAL}).classify_model(DPR)
    assert answer["family"] == "retrieval"
    assert 0.5 < answer["confidence"] < 0.9


def test_only_the_families_given_are_chosen_from() -> None:
    classifier = ModelFamilyClassifier(model_family_defs={"retrieval": RETRIEVAL})
    assert classifier.classify_model("gpt2", model_class="GPT2LMHeadModel")["family"] == UNKNOWN
    assert classifier.classify_model("gpt2", tasks=["document-search"])["family"] == "retrieval"
    assert classifier.classify_model("x", methods=["retrieve"])["family"] == "retrieval"


def test_classify_can_be_added_to_the_built_in_ones() -> None:
    classifier = ModelFamilyClassifier(model_family_defs={**MODEL_FAMILIES, "retrieval": RETRIEVAL})
    assert classifier.classify_model("bert-base-uncased")["family"] == "embedding"
    assert classifier.classify_model("acme/search-bert")["family"] == "retrieval"


def test_subfamilies_of_ones_own() -> None:
    web: Definition = {"keywords": ["web"], "tasks": ["web-retrieval"]}
    subfamilies = {**MODEL_SUBFAMILIES, "retrieval": {"web": web}}
    classifier = ModelFamilyClassifier({"retrieval": RETRIEVAL}, subfamilies)
    assert classifier.classify_model("acme/web-search")["subfamily"] == "web"


def test_a_subfamily_that_was_left_out_is_not_given() -> None:
    classifier = ModelFamilyClassifier(model_subfamily_defs={"embedding": {}})
    answer = classifier.classify_model("bert-base-uncased")
    assert answer["family"] == "embedding"
    assert answer["subfamily"] is None


def test_an_unknown_family_gets_the_general_template() -> None:
    assert ModelFamilyClassifier().get_template_for_family("retrieval", "web") == "hf_template.py"
