"""Workflows with nodes of IPAdapter_plus become workflows with the nodes of this extension: `python dev.py migrate FILE [OUT]`.

A file in the page's format or in that of the API is changed only where such nodes are. What cannot be carried over is listed.
"""
