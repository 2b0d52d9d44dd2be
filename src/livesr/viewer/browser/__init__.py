"""The live preview in the browser.

One page and the server behind it, nothing from outside, nothing to build.
"""
