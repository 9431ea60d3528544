{% extends "hf_template.py" %}
{% block title %}Document models{% endblock %}
{% block name %}TestDocumentQa{% endblock %}
{% block about %}Reads documents: their text, layout and image.{% endblock %}
{% block architectures %}"LayoutLM*", "*ForDocumentQuestionAnswering", "VisionEncoderDecoderModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForQuestionAnswering")) %}

    def test_answers_have_a_start_and_an_end(self, hf_model, hf_inputs):
        """Each token has a score as the start of the answer, and one as its end."""
        outputs = hf_model.forward(hf_inputs.forward)
        assert outputs["start_logits"].shape == outputs["end_logits"].shape
        assert len(outputs["start_logits"]) == hf_inputs.batch
{%- endif %}{% endblock %}
