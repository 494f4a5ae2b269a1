"""From a prompt with subjects to a CONDITIONING that carries them through other nodes, and to the rows of a call."""
