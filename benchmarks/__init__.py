"""Measurements beside the base model, each one command: `python dev.py bench`."""
