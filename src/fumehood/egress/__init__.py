"""The one way out of a sandbox: who may be reached, and the relay that takes it there."""
