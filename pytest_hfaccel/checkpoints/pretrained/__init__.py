"""Where pretrained weights come from: the hub, installed packages, conversions, and a training of seconds."""
