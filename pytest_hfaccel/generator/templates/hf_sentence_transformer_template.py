{% extends "hf_template.py" %}
{% block title %}Sentence encoders{% endblock %}
{% block name %}TestSentenceTransformer{% endblock %}
{% block about %}Encodes sentences so that similar ones are close.{% endblock %}
{% block architectures %}"*Model", "*EncoderModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("Model")) %}

    def test_different_texts_have_different_vectors(self, hf_model, hf_inputs):
        """The mean over the tokens tells the two texts of the batch apart."""
        states = hf_model.forward(hf_inputs.forward)["last_hidden_state"].float()
        mask = hf_inputs.forward["attention_mask"].unsqueeze(-1)
        first, second = (states * mask).sum(1) / mask.sum(1)
        assert (first - second).abs().max() > 0
{%- endif %}{% endblock %}
