"""MoA Mini's parts and their training: autoencoder, base model, image encoder, adapter."""
