"""BERT and its relatives: bidirectional encoders of text."""

from pytest_hfaccel import ModelClassTests, main


class TestBert(ModelClassTests):
    """BertForMaskedLM, BertModel, DistilBertForMaskedLM, RobertaForMaskedLM, AlbertForMaskedLM, MPNetModel."""

    architectures = ("Bert*", "DistilBert*", "Roberta*", "Albert*", "MPNet*")
    default_model = "bert-base-uncased"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
