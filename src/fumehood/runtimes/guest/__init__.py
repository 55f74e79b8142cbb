"""Programs that run inside a session's sandbox and execute its cells. The host reads them as text and never imports them."""
