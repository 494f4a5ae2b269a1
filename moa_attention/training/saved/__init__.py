"""What a run keeps on the disk: its states, its settings, its log."""
