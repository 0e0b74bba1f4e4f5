"""What every suite shares: the fixtures of tests/support."""

pytest_plugins = ["support.releases", "support.device", "support.session"]
