"""Studies: experiments as specifications, results as records."""
