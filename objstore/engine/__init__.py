"""Floor 3, the engine: journal, home, flusher and the store that they make up."""
