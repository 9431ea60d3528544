{% extends "hf_template.py" %}
{% block title %}Vision-language models{% endblock %}
{% block name %}TestMultimodal{% endblock %}
{% block about %}Answers with text about images.{% endblock %}
{% block architectures %}"*ForConditionalGeneration", "*ForVisionText2Text", "VisionEncoderDecoderModel"{% endblock %}
