"""Files: adapters, routers and subjects, in this project's format and in others'."""
