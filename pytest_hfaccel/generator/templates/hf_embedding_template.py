{% extends "hf_template.py" %}
{% block title %}Encoders of text{% endblock %}
{% block name %}TestEmbedding{% endblock %}
{% block about %}Fills masks and represents text.{% endblock %}
{% block architectures %}"*ForMaskedLM", "*ForPreTraining"{% endblock %}
