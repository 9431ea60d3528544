{% extends "hf_template.py" %}
{% block title %}Sequence-to-sequence models of text{% endblock %}
{% block name %}TestSeq2Seq{% endblock %}
{% block about %}Turns one text into another.{% endblock %}
{% block architectures %}"*ForConditionalGeneration", "*MTModel"{% endblock %}
