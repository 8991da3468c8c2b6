"""The capture plan and the settings of the extraction, as a user writes them.

May import: data.
Start reading at plan.py, CapturePlan.
"""
