"""Measuring how fast cells are and in how much memory, and keeping what was measured."""
