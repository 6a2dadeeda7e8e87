"""This folder is for the hours: random walks, thousands of kills, minutes of death. `make soak` runs it."""
