"""One file for each API that the service speaks; each is thin, over the same engine and store."""
