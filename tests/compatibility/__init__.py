"""What has a broker, run on this machine's RabbitMQ; the results are in docs/compatibility.md. `make compatibility`."""
