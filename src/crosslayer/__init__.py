"""From a neural network and a small device to verified firmware with a data sheet. Read `crosslayer.flow` first."""
