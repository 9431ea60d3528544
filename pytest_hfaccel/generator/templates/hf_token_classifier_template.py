{% extends "hf_template.py" %}
{% block title %}Classifiers of text{% endblock %}
{% block name %}TestTokenClassifier{% endblock %}
{% block about %}Classifies tokens, spans or whole texts.{% endblock %}
{% block architectures %}"*ForTokenClassification", "*ForSequenceClassification", "*ForQuestionAnswering"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForTokenClassification")) %}

    def test_every_token_has_scores(self, hf_model, hf_inputs):
        """Each token has a score for each label."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.shape[:2] == hf_inputs.forward["input_ids"].shape
{%- endif %}{% endblock %}
