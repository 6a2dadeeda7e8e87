"""This folder types the released commands at a shell, as the README and the examples say them."""
