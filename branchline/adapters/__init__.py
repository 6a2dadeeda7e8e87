"""This package touches: each file makes one product (git, SQLite, uv, Envoy, processes, folders) keep a port's promise.

An adapter renders what is to be done as data, then does it; it translates its product's errors, and knows no other
adapter. A product's library is imported here and in no other layer.
"""
