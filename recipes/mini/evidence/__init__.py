"""The evidence page: ablations trained with an equal budget, their table, plots and pictures."""
