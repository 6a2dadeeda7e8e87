"""This package speaks to people: each file is a section of the help screen.

Commands are clients of the daemon's API. A command imports what it prints with only when it prints: starting is fast.
"""
