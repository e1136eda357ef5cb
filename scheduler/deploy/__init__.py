"""Files with which three brokers and three schedulers are run, and the keys of all their users.

`files` has what is printed or written for each kind of deployment, `broker` makes the configuration of the
brokers from the shipped permissions, and `keys` draws what is secret.
"""
