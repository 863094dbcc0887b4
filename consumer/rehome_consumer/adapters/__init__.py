"""The real ports: one module per neighbour, which alone knows how that neighbour speaks."""
