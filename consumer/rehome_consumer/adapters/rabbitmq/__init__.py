"""RabbitMQ: the broker port, dead letters, queues, and its administration."""
