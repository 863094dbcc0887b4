"""What operators' tools are made of: built from the same parts as the consumer."""
