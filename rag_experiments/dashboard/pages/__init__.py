"""One module per page: `DEFAULTS` are the choices in its address, `context(watch, view)` fills its template."""
