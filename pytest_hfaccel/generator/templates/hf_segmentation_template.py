{% extends "hf_template.py" %}
{% block title %}Segmentation models{% endblock %}
{% block name %}TestSegmentation{% endblock %}
{% block about %}Finds regions in images.{% endblock %}
{% block architectures %}"*Segmentation", "Sam*Model"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForSemanticSegmentation")) %}

    def test_every_place_has_scores(self, hf_model, hf_inputs):
        """Each place of each image has a score for each label."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 4
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
