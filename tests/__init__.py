"""This package proves the project: unit, contract, integration, e2e, and the soak that `make test` has no time for."""
