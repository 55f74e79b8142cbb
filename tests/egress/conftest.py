"""What tests of this folder share."""

from tests.testing.reaching import echoes, outside

__all__ = ["echoes", "outside"]
