"""One module per package type: what its clients ask, what to rewrite, what is recorded. Pure, like routing.

A type is a module here with a `KIND`; `registry.kinds()` finds it. Nothing else needs to know its name.
"""
