"""``tailbone doctor``: whether verifiers will accept the tokens, and what to paste to configure them."""
