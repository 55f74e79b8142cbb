"""Checks that prove a model server right, or name what it gets wrong: `fumehood model verify`.

Promised: the wire is spoken by this part itself, so that nothing is forgiven on the way; a check fails for what the server
does, never for what a weak model says (such a check "needs real weights"). Not promised: that a server which passes is free
of faults that no check looks for.
"""
