"""Other implementations' training steps beside ours, over their own networks.

Their code is not part of this project: their networks are loaded from a checkout, and their steps
are written here as their scripts do them.
"""
