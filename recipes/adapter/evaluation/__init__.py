"""The parts of an evaluation; `../evaluate.py` runs it."""
