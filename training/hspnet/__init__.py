"""Training of HSP-Net: what it does not share with the other systems."""
