"""Training data: folders of pictures read, framed, cached and drawn from."""
