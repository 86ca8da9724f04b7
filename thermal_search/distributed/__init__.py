"""The workers that train or evaluate together: how they meet and what they agree on."""
