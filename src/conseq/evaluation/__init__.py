"""How well held-out items are ranked, under a stated protocol."""
