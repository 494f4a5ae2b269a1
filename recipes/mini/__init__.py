"""MoA Mini: a small diffusion model and its Mixture-of-Attention adapter, trained on drawn people in drawn scenes."""
