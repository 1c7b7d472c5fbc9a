"""The build: which work there is, who does it, and how it ends with the same bytes whatever happens in between."""
