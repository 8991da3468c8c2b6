"""Look-up of texts in a store: files of sorted keys beside the shards, which are built from these and checked by them.

May import: nothing else here.
Start reading at key_index.py, KeyIndex; the format of the files is in segment.py.
"""
