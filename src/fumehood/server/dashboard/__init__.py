"""The dashboard: pages for people, made on the server, and a little JavaScript for the playground."""
