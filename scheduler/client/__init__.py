"""Client of the wire: submits builds, follows them, asks about them and steers them."""
