"""What a process finds that an earlier one left: builds that go on, and those that must not."""
