"""A local web page about run directories: table, curves, sweep, questions, cost and command lines.

It uses Starlette, Jinja2 and HTMX instead of a dashboard library for three reasons. Thousands of runs and hundreds of
thousands of predictions need paging on the server. A view must have an address that can be sent. Pages of plain forms
and links work by keyboard, on a phone, and in a browser test. (Streamlit keeps the view in a websocket session and
sends whole tables.) All requests are GET, nothing is written, and the only state is the address and the directories.

Plotly draws the figures, in Python, shared with the HTML report. `plotly.min.js` is part of the installed plotly
package and HTMX is in `static/`, so no page loads anything from another machine. Imports no torch.
"""
