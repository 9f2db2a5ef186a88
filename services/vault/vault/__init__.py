"""Vault: seals game keys and lets only their owner open them. Refuses to know the supplier, prices or e-mail."""
