"""Other people's files as personalised branches of MoA."""
