"""Adapters: one module for each framework or protocol, its SDK imported inside it.

They translate, and decide nothing: every act goes through `creto.layer`.
"""
