{% extends "hf_template.py" %}
{% block title %}Classifiers and encoders of images{% endblock %}
{% block name %}TestVision{% endblock %}
{% block about %}Classifies images.{% endblock %}
{% block architectures %}"*ForImageClassification*",{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForImageClassification")) %}

    def test_every_image_has_scores(self, hf_model, hf_inputs):
        """Each image has a score for each label."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 2
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
