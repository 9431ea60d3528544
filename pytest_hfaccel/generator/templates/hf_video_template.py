{% extends "hf_template.py" %}
{% block title %}Classifiers of videos{% endblock %}
{% block name %}TestVideo{% endblock %}
{% block about %}Classifies videos.{% endblock %}
{% block architectures %}"*ForVideoClassification",{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForVideoClassification")) %}

    def test_every_video_has_scores(self, hf_model, hf_inputs):
        """Each video has a score for each label."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 2
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
