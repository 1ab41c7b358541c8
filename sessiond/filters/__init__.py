"""What of the events is left out, folded or labelled, and the account of it."""
