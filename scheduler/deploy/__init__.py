"""Files with which three brokers and three schedulers are run, and the keys of all their users.

`files` has what is printed or written for each kind of deployment, `templates` reads what ships for that,
`broker` makes the configuration of the brokers from the shipped permissions, and `keys` draws what is secret.
Certificates are made by the script `certificates.sh`, where it is run: no key of theirs passes through here.
"""
