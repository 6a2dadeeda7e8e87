"""This package decides: names, the law, the plan, the split and the evidence, as pure functions of values.

Nothing here knows a clock, a disk, a network, a process or a third party; what it needs to know is handed in.
"""
