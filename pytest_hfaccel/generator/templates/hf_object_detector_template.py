{% extends "hf_template.py" %}
{% block title %}Object detectors{% endblock %}
{% block name %}TestObjectDetector{% endblock %}
{% block about %}Finds boxes and labels in images.{% endblock %}
{% block architectures %}"*ForObjectDetection",{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForObjectDetection")) %}

    def test_every_box_has_scores(self, hf_model, hf_inputs):
        """Boxes are within the image, and each has scores."""
        outputs = hf_model.forward(hf_inputs.forward)
        boxes = outputs["pred_boxes"]
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert outputs["logits"].shape[:2] == boxes.shape[:2]
{%- endif %}{% endblock %}
