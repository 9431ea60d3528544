{% extends "hf_template.py" %}
{% block title %}Depth estimators{% endblock %}
{% block name %}TestDepthEstimation{% endblock %}
{% block about %}Estimates the depth of every pixel.{% endblock %}
{% block architectures %}"*ForDepthEstimation"{% endblock %}
