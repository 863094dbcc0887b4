"""The platform on a real Docker Swarm, on one machine: a private engine, or the one at DOCKER_HOST."""
