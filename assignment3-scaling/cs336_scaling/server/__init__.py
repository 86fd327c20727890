"""The training API's server: both editions, on a database that keeps every budget."""
