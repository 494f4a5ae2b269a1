"""Training and evaluating an adapter: prepare, plan, train, evaluate."""
