"""The state of one sampling run: steps, budget, cached prompts, trace."""
