"""Everything that touches ComfyUI's internals; the node files hold schemas and short execute() methods."""
