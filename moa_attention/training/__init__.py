"""Training an adapter. The U-Net is passed in, so that training and inference share one attention path."""
