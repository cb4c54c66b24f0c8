"""Programs of any language: what their text says of the memory and the time that they take."""
