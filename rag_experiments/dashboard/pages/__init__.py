"""One module a page: `DEFAULTS`, the choices its address holds, and `context(watch, view)`, what its template gets."""
