"""Attacks on the sandbox that anybody can run on a host of their own: `fumehood doctor --probes`.

Promised: each probe runs hostile code behind the walls, and holds only where an observer on the host's side agrees: a file
that is not there, a port where nobody came, a verdict of the kernel's. Run against nothing (`unwalled`) they fall. Not
promised: that what no probe tries is impossible.
"""
