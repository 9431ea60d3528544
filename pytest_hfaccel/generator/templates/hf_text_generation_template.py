{% extends "hf_template.py" %}
{% block title %}Causal language models{% endblock %}
{% block name %}TestTextGeneration{% endblock %}
{% block about %}Continues text token by token.{% endblock %}
{% block architectures %}"*ForCausalLM", "*LMHeadModel"{% endblock %}
