"""Real servers from wheels: PostgreSQL, NATS with JetStream, and SeaweedFS as S3.

Each keeps its data under one folder, starts within seconds on a port of its own and is stopped by whoever started it.
The supervisor and the tests use them alike.
"""
