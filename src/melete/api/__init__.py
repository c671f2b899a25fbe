"""The HTTP API over what the store knows: typed, paged, read by the web page and by programs."""
