"""A process manager that stands where Docker Swarm stands in production, and the runtime that speaks to it."""
