"""The whole system on one machine: real servers from wheels, fakes of everything outside, and a supervisor.

For development, demonstrations and tests. Nothing in production imports it.
"""
