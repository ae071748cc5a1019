"""Translations: what comes in by a wire becomes a Request, and a Reply goes out."""
