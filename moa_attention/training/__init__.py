"""Training an adapter: the U-Net is passed in, so that training and use share one attention path."""
