"""Finds the best GAN for turning RGB pictures into thermal-infrared ones."""
