{% extends "hf_template.py" %}
{% block title %}Sequence-to-sequence models of text{% endblock %}
{% block name %}TestSeq2Seq{% endblock %}
{% block about %}Turns one text into another.{% endblock %}
{% block architectures %}"*ForConditionalGeneration", "*MTModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForConditionalGeneration")) %}

    def test_every_sample_has_scores(self, hf_model, hf_inputs):
        """Each token of the answers has a score for each token that may follow."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 3
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
