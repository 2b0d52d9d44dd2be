"""Engines and the runtimes that execute them; serves the upscale and the separate step."""
