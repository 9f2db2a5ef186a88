"""Who is asking: bearer tokens, sessions, and the login at the OIDC issuer."""
