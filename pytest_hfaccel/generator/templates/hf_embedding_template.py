{% extends "hf_template.py" %}
{% block title %}Encoders of text{% endblock %}
{% block name %}TestEmbedding{% endblock %}
{% block about %}Fills masks and represents text.{% endblock %}
{% block architectures %}"*ForMaskedLM", "*ForPreTraining"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForMaskedLM")) %}

    def test_every_token_has_scores(self, hf_model, hf_inputs):
        """Each token has a score for each word of the vocabulary."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.shape[:2] == hf_inputs.forward["input_ids"].shape
{%- endif %}{% endblock %}
