"""Peers' training steps beside ours, over the peers' own networks.

None of their code is here: a checkout's folder is given, their networks are loaded from it, and
their steps are written as their scripts play them.
"""
