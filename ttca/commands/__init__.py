"""Commands that have a file of their own; ttca/cli.py registers them."""
