"""`thermal-search report`: what a search has found, as one HTML file that needs no network.

gather.py        the record of a search as tables and texts
gallery.py       the generated images, side by side
figures.py       the record as charts; charts.py draws them as SVG
suggestions.py   what to try next, by rules over the results
page.py          the page, from page.html, charts.html, page.css and page.js
"""
