{% extends "hf_template.py" %}
{% block title %}Classifiers of sound{% endblock %}
{% block name %}TestAudioClassifier{% endblock %}
{% block about %}Classifies sounds or speakers.{% endblock %}
{% block architectures %}"*ForAudioClassification", "*ForSequenceClassification", "*ForXVector", "ClapModel"{% endblock %}
