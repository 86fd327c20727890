"""The training API's data, in both editions: what clients send, what the server answers, and what is allowed."""
