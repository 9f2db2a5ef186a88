"""The foreign systems of kinguin-gateway: the supplier over HTTP, PostgreSQL, and vault over gRPC."""
