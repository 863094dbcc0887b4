"""The ports: what steps, engine and operators need of the world, as Protocols."""
