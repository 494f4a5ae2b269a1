"""Datasets: the folders of pictures of a run, each with its licence, captions, repeats and weight."""
