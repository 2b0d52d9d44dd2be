"""The live preview in the browser: one page and the server behind it, nothing from outside, nothing to build."""
