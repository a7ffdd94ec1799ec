"""Benchmarks: one file per question, each writing JSON rows to benchmarks/results/."""
