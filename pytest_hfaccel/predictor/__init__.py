"""Predicting how fast a model will run, and in how much memory, from what it does and what the device measured."""
