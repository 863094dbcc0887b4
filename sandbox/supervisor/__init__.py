"""A process manager in place of Docker Swarm, and the runtime with which the consumer uses it."""
