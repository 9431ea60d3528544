{% extends "hf_template.py" %}
{% block title %}Classifiers of sound{% endblock %}
{% block name %}TestAudioClassifier{% endblock %}
{% block about %}Classifies sounds or speakers.{% endblock %}
{% block architectures %}"*ForAudioClassification", "*ForSequenceClassification", "*ForXVector", "ClapModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForSequenceClassification") or architecture.endswith("ForAudioClassification")) %}

    def test_every_recording_has_scores(self, hf_model, hf_inputs):
        """Each recording has a score for each label."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.ndim == 2
        assert len(logits) == hf_inputs.batch
{%- endif %}{% endblock %}
