"""The broker as code: topology, permissions, users, and the comparison with a running broker."""
