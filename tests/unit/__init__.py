"""This folder tests what is pure: no disk, no network, no clock; all of it in under three seconds."""
