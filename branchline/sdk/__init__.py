"""This package is imported by the services: it declares, runs and serves a revision inside the service's environment.

Standard library only, on every Python that a service may use: it rides in by path beside the service's own pins.
"""
