{% extends "hf_template.py" %}
{% block title %}Speech recognition models{% endblock %}
{% block name %}TestAudio{% endblock %}
{% block about %}Turns speech into text.{% endblock %}
{% block architectures %}"*ForCTC", "*ForSpeechSeq2Seq", "*ForConditionalGeneration"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForCTC")) %}

    def test_every_recording_has_scores(self, hf_model, hf_inputs):
        """Each moment of each recording has a score for each letter."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 3
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
