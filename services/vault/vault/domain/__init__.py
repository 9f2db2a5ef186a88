"""Values of vault. Imports the standard library only."""
