"""Generative models as Pyro programs, and the learning principles that fit them."""
