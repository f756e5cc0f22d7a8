"""What users bring: formats, checks, splits, prompts."""
