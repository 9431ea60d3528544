{% extends "hf_template.py" %}
{% block title %}Causal language models{% endblock %}
{% block name %}TestTextGeneration{% endblock %}
{% block about %}Continues text token by token.{% endblock %}
{% block architectures %}"*ForCausalLM", "*LMHeadModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForCausalLM") or architecture.endswith("LMHeadModel")) %}

    def test_every_token_has_scores(self, hf_model, hf_inputs):
        """Each token has a score for each token that may follow."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.shape[:2] == hf_inputs.forward["input_ids"].shape
{%- endif %}{% endblock %}
