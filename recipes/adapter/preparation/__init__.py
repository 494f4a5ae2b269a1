"""What the preparation of a folder is made of; `../prepare.py` runs it."""
