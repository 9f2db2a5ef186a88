"""One file for each foreign system; PostgreSQL has one for its tables, one for reading, and one for each port."""
