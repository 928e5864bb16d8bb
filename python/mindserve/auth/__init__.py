"""Who may call: clients and their keys, and the tokens that they get for them.

`keys` has the file that lists clients, `hashing` their secrets, `signing` the keys that tokens are signed with,
`tokens` makes and checks tokens, and `authority` is all of that of one server.
"""
