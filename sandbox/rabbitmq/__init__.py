"""Private RabbitMQ nodes."""
