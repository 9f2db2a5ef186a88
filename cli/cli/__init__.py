"""The command line, `keyferry`: what a person does with a running system, or checks without trusting it.

It knows the contracts and no service's insides.
"""
