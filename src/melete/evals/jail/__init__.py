"""The inside of the sandbox: what the fresh child process of `melete.evals.sandbox` does before it runs a program.

Only the standard library is imported here, and nothing else of Melete, so that the child starts in milliseconds.
"""
