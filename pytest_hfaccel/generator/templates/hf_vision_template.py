{% extends "hf_template.py" %}
{% block title %}Classifiers and encoders of images{% endblock %}
{% block name %}TestVision{% endblock %}
{% block about %}Classifies images.{% endblock %}
{% block architectures %}"*ForImageClassification*"{% endblock %}
