"""Perturbations learned on models or callables: arrays in, int8 arrays out."""
