{% extends "hf_template.py" %}
{% block title %}Models that produce sound{% endblock %}
{% block name %}TestTextToSpeech{% endblock %}
{% block about %}Turns text into sound.{% endblock %}
{% block architectures %}"*ForTextToSpeech", "*ForConditionalGeneration", "*Model"{% endblock %}
