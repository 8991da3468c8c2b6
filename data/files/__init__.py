"""Files as people have them: compression, encodings, delimiters and formats, to typed rows with their places.

May import: data, data.writing.
Start reading at table.py, open_table.
"""
