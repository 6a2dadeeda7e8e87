"""This package holds one fake for each port: it passes the contract suite that the real adapter passes."""
