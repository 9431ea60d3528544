{% extends "hf_template.py" %}
{% block title %}Encoders of images and texts{% endblock %}
{% block name %}TestImageTextEncoder{% endblock %}
{% block about %}Encodes images and texts into one space.{% endblock %}
{% block architectures %}"*CLIPModel", "Siglip*Model", "Align*Model"{% endblock %}
