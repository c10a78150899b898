"""How much of its accuracy a model owes to each layer's weights, and the plan that follows from it."""
