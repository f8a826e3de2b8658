"""What is compared: trials, arms, tasks, the protocol, and the record of all of them."""
