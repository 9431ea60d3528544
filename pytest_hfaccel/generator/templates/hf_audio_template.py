{% extends "hf_template.py" %}
{% block title %}Speech recognition models{% endblock %}
{% block name %}TestAudio{% endblock %}
{% block about %}Turns speech into text.{% endblock %}
{% block architectures %}"*ForCTC", "*ForSpeechSeq2Seq", "*ForConditionalGeneration"{% endblock %}
