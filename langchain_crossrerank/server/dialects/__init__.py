"""The dialects that the server speaks, one module each: the shape of requests, results and errors."""
