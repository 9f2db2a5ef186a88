"""The rules of fulfillment: values in, decisions out. Imports the standard library only."""
