"""Places of the components of a build on the page: columns by wave, in an order with few crossings.

`waves` is quick and always works; `ordering` takes longer, and runs in a process of its own (`worker`), with
a deadline (`layouts`). All but the latter is pure.
"""
