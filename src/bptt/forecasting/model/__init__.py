"""The forecaster: options, a network, and the linear model that it adds to."""
