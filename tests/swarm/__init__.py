"""The runtime on a real Docker Swarm: `make test-swarm` (root, and Debian's package docker.io)."""
