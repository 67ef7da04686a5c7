"""Tables, series, their parts and scaling: all that is known before anything is fitted."""
