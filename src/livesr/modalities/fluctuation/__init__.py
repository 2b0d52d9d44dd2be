"""Super-resolution from fluctuations of ordinary widefield frames: eSRRF and SOFI."""
