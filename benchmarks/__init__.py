"""Benchmarks: one file per question, each returning one JSON record, which `--keep` writes into results/."""
