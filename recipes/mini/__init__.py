"""MoA Mini: a small diffusion model and its Mixture-of-Attention adapter, made from drawn people in drawn scenes."""
