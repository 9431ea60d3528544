{% extends "hf_template.py" %}
{% block title %}Object detectors{% endblock %}
{% block name %}TestObjectDetector{% endblock %}
{% block about %}Finds boxes and labels in images.{% endblock %}
{% block architectures %}"*ForObjectDetection"{% endblock %}
