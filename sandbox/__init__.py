"""A small real platform on one machine, for the demo and the tests.

Real servers from Debian's packages (RabbitMQ, PostgreSQL), run as private child processes of this one: free
ports, loopback only, directories of their own, and nothing left when the process ends, however it ends.
"""
