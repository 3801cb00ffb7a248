"""Networks of linear layers and kinks, layer by layer: what the closed form and the bounds need of them."""
