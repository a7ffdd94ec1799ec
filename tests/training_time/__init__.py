"""Tests of the levers that act through training data."""
