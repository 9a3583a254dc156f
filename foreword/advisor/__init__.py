"""Arithmetic on shapes and a table of rules: what a method costs and which one to try first. Standard library only."""
