{% extends "hf_template.py" %}
{% block title %}Chat models{% endblock %}
{% block name %}TestChatModel{% endblock %}
{% block about %}Answers in a conversation; its tokenizer has a chat template.{% endblock %}
{% block architectures %}"*ForCausalLM", "*LMHeadModel"{% endblock %}
{% block tests %}{% if architecture and (architecture.endswith("ForCausalLM") or architecture.endswith("LMHeadModel")) %}

    def test_every_token_has_scores(self, hf_model, hf_inputs):
        """Each token has a score for each token that may follow."""
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.shape[:2] == hf_inputs.forward["input_ids"].shape
{%- endif %}{% endblock %}
