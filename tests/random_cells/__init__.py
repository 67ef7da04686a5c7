"""Random cells as strangers write them: what ``auto`` makes of them, beside ``eager``."""
