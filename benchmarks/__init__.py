"""Costs of MoA against the base model, each measured by one command: `python dev.py bench`."""
