"""Finds the best GAN for turning RGB images into thermal-infrared ones."""
