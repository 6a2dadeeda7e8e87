"""This package speaks HTTP: the daemon's API, its wire models, and the pages that grow on them.

It translates requests into calls of the engine and errors into problem details. It decides nothing.
"""
