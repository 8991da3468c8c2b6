"""What the result of a function depends on: its code, and what it uses of its own package or script.

May import: nothing else here.
Start reading at parts.py, code_digest.
"""
