"""A small OIDC issuer: authorization code with PKCE, three accounts and no passwords.

It issues what a real one would, so that the edge checks tokens here exactly as in production. It decides nothing about
orders.
"""
