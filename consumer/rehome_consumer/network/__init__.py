"""Network access: TLS, names of hosts, and a small HTTP server."""
