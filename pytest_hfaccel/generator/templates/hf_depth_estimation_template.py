{% extends "hf_template.py" %}
{% block title %}Depth estimators{% endblock %}
{% block name %}TestDepthEstimation{% endblock %}
{% block about %}Estimates the depth of every pixel.{% endblock %}
{% block architectures %}"*ForDepthEstimation",{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForDepthEstimation")) %}

    def test_every_image_has_depths(self, hf_model, hf_inputs):
        """Each image has a depth at each place."""
        depth = hf_model.forward(hf_inputs.forward)["predicted_depth"]
        assert len(depth) == hf_inputs.batch
        assert depth.ndim == 3
{%- endif %}{% endblock %}
