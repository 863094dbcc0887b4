"""A real Docker Swarm on one machine, private to the process that makes it."""
