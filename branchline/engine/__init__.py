"""This package drives: it observes the world through the ports, asks core what is wanted, and takes the next step.

It knows no product and no protocol. It records before it acts, and observes again after it has acted.
"""
