"""What every other part stands on: frames, configuration, errors, clocks.

Imports numpy, pydantic and yaml only.
"""
