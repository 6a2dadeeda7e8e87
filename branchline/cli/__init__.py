"""This package speaks to people: each file is a section of the help screen.

Commands are clients of the daemon's API, and start fast: what only some of them need (a product, a table of words, how
to read a file) is imported by the function that needs it, and named for types alone above it.
"""
