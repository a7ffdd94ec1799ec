"""Tests of the data sets and of the people read from a user's own files."""
