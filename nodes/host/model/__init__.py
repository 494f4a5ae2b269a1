"""How MoA attaches to a model of the host, and what happens in a run and in a call; `patch.py` and `unet.py` alone patch models."""
