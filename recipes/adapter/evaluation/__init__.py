"""What an evaluation is made of; `../evaluate.py` runs it."""
