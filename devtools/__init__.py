"""What `dev.py` and the tests share: the environment, the host, a server, the demo. Standard library only; no part of the node pack."""
