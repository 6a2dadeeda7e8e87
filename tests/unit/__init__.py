"""This folder tests one thing at a time, without disk, network or clock; all of it in under three seconds."""
