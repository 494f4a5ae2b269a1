"""Kinds of adapters: what each adds to a base model's attention layers."""
