{% extends "hf_template.py" %}
{% block title %}Classifiers of videos{% endblock %}
{% block name %}TestVideo{% endblock %}
{% block about %}Classifies videos.{% endblock %}
{% block architectures %}"*ForVideoClassification"{% endblock %}
