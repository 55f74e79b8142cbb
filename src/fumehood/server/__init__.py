"""The code-interpreter service: HTTP doors over one engine, and what it keeps."""
