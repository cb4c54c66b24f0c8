"""Training of a surrogate from recorded landscapes: recipe, data, loss, loop."""
