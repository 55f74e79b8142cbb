"""Interchangeable ways to put the walls up."""
