"""What adapters of several neighbours share; the only folder that they may all import."""
