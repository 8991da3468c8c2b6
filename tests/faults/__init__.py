"""Faults: real processes that are killed, refused the disk, given damaged or hostile files, or changed beneath them.

    python -m tests.faults --seconds 3600

Start reading at campaign.py, Campaign; each kind of fault is a module with functions that try one fault.
"""
