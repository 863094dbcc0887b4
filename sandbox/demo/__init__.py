"""`rehome demo`: a whole move, watched from outside; and consumers that fail on purpose."""
