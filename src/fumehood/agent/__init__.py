"""Answers questions with a chat model that may run code. Headless: a door watches and shows."""
