"""`rehome demo`: a complete move, observed from outside; and consumers that fail on purpose."""
