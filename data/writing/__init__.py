"""Writing systems: scripts, and words in them, also where no spaces stand between words.

May import: nothing else here.
Start reading at script.py, script_of.
"""
