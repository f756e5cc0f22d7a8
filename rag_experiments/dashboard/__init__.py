"""A local web page over run directories: the table, the curves, the sweep, the questions, the cost, the command.

Starlette, Jinja2 and HTMX, and why not a dashboard library: thousands of runs and hundreds of thousands of
predictions need paging on the server; a view has to be an address that can be sent; and a page made of plain
forms and links works by keyboard, on a phone, and under a browser test. Streamlit keeps the view in a
websocket session, and sends whole tables. Everything is a GET, nothing is ever written, and the only state
is the address and the directories.

Figures are Plotly's, made in Python and shared with the HTML report; `plotly.min.js` comes out of the installed
plotly package, HTMX out of `static/`: no page asks anything of another machine. Imports no torch.
"""
