"""What `dev.py` and the tests share; no part of the node pack.

`dev.py` itself, `venv`, `environment`, `torch_build`, `host`, `browser`, `selfie` and `testing` run before the
environment exists: standard library only. The other files run in it.
"""
