"""This folder plays stories: one whole controller over fakes and a state folder, until it has settled."""
