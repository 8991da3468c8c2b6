"""Files of settings, TOML and JSON, of which size and nesting are bounded, as they may be from others.

May import: data.
Start reading at toml.py, read_toml.
"""
