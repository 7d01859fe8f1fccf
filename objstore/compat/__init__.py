"""What connects objstore with ZODB. Needs the extra `zodb`; nothing below imports it."""
