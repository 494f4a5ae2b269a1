"""The cache: what the frozen models make of every picture, computed once by all processes of a run."""
