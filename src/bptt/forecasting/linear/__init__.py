"""Linear models: forms of regression on lags, judged, fitted, and applied to data."""
