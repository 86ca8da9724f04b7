"""The built-in demo: drawn road scenes, and a tour of everything on them."""
