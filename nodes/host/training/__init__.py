"""Training and validation with the host: its models as encoders and base, its sampler, its progress and cancelling."""
