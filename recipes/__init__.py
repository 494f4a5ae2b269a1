"""How the shipped models are made: data, training and evaluation, each step one command (see `run.py`)."""
