"""The optimisers of libraries, the learning rate of a step, and the average of the weights."""
