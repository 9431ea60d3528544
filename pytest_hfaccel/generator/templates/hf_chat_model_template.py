{% extends "hf_template.py" %}
{% block title %}Chat models{% endblock %}
{% block name %}TestChatModel{% endblock %}
{% block about %}Answers in a conversation; its tokenizer has a chat template.{% endblock %}
{% block architectures %}"*ForCausalLM", "*LMHeadModel"{% endblock %}
