"""Which version is trusted: register, gate, promote."""
