{% extends "hf_template.py" %}
{% block title %}Sentence encoders{% endblock %}
{% block name %}TestSentenceTransformer{% endblock %}
{% block about %}Encodes sentences so that similar ones are close.{% endblock %}
{% block architectures %}"*Model", "*EncoderModel"{% endblock %}
