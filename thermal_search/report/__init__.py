"""`thermal-search report`: what a search has found, as one HTML file that needs no network.

The record becomes plain data, and templates write it:

    results.py             the record of a search, and what follows from it
    gather.py, budget.py   tables and texts
    figures.py, parameter_figures.py, charts.py   charts, as positions that charts.html draws as SVG
    gallery.py             the generated images, side by side
    suggestions.py         what to try next, by rules over the results
    page.py                the page, from page.html, charts.html, page.css and page.js
"""
