"""The form and the rules of the log, as pure values and functions of the standard library."""
