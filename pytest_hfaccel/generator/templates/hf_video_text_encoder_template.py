{% extends "hf_template.py" %}
{% block title %}Encoders of videos and texts{% endblock %}
{% block name %}TestVideoTextEncoder{% endblock %}
{% block about %}Encodes videos and texts into one space.{% endblock %}
{% block architectures %}"XCLIPModel", "VideoPrismClipModel"{% endblock %}
