"""The pictures MoA Mini is trained on: drawn people in drawn scenes, captions, masks, latents."""
