{% extends "hf_template.py" %}
{% block title %}Segmentation models{% endblock %}
{% block name %}TestSegmentation{% endblock %}
{% block about %}Finds regions in images.{% endblock %}
{% block architectures %}"*Segmentation", "Sam*Model"{% endblock %}
