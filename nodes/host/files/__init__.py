"""The folders and files of adapters, subjects, CLIP vision models and MoA Mini, as the host loads them."""
