{% extends "hf_template.py" %}
{% block title %}Document models{% endblock %}
{% block name %}TestDocumentQa{% endblock %}
{% block about %}Reads documents: their text, layout and image.{% endblock %}
{% block architectures %}"LayoutLM*", "*ForDocumentQuestionAnswering", "VisionEncoderDecoderModel"{% endblock %}
