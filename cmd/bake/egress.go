package main

import "github.com/spf13/pflag"

// egressFlag registers the flag that says what machines of the local cloud reach.
func egressFlag(flags *pflag.FlagSet, value *string) {
	flags.StringVar(value, "allow-egress", "", "let local machines connect to these `addresses` of the host and of private networks too: a comma-separated list of ADDRESS, CIDR or NAME, each with or without :PORT, or all; default: $BAKE_ALLOW_EGRESS")
}
