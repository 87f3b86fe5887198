"""Provider bills: what a provider says that was used and what it costs, beside what was metered."""
