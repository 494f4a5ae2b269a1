"""The parts of the preparation of a folder; `../prepare.py` runs it."""
