"""What `dev.py` and the tests share. Standard library only; no part of the node pack."""
