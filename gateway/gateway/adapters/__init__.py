"""One file per foreign system."""
