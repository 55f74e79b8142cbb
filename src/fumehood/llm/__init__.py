"""Chat models behind one port: Mistral's API, any OpenAI-compatible server, and a model that replays a file."""
