"""Models that run in this process, by `transformers`: their files, prompts, answers, batches, and their HTTP API."""
