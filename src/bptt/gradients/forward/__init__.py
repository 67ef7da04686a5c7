"""Forward methods: RTRL, UORO and focused backpropagation."""
