"""This folder tests with real parts: git, SQLite, uv, Envoy, processes; each in a home of its own."""
