"""The commands of `creto audit`, by what they are for."""
