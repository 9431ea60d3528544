{% extends "hf_template.py" %}
{% block title %}Models of time series{% endblock %}
{% block name %}TestTimeSeries{% endblock %}
{% block about %}Forecasts or classifies sequences of numbers.{% endblock %}
{% block architectures %}"*ForPrediction", "*ForTimeSeriesClassification", "*ForRegression"{% endblock %}
