"""What `dev.py` and the tests share: environment, host, server, demo. Standard library only; no part of the node pack."""
