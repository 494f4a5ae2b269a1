"""An adapter of your own: prepare pictures, plan, train, evaluate."""
