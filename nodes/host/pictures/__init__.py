"""From reference pictures to features of a subject, and from a sampling run to pictures of its routing."""
