"""The workers that train or evaluate together: how they connect and what they communicate."""
