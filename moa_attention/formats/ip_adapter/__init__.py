"""IP-Adapter files (arXiv 2308.06721): their names, the kinds of their image projection, and their import."""
