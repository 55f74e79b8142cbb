"""Pure data that all parts share: requests, results, limits, and the Executor port."""
