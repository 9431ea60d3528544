{% extends "hf_template.py" %}
{% block title %}Classifiers of text{% endblock %}
{% block name %}TestTokenClassifier{% endblock %}
{% block about %}Classifies tokens, spans or whole texts.{% endblock %}
{% block architectures %}"*ForTokenClassification", "*ForSequenceClassification", "*ForQuestionAnswering"{% endblock %}
