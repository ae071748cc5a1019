"""`hfserve bench`: how many requests an endpoint answers per second, and how soon, whatever serves it."""
